#!lua flags=allow-oom
-- @include schedule
-- Removes a schedule. Allowed when memory is full: it frees some.
--
-- KEYS     all parts of the queue
-- ARGV     5 id
-- Returns  whether there was one (1) or not (0)
-- Publishes  nothing
-- Twice    the second time there is none
schedules.set_tick(ARGV[FIRST], '')
return call('HDEL', SCHEDULES, ARGV[FIRST])
