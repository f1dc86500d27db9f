#!lua flags=allow-oom
-- @include schedule
-- Lets a tick wait that its broker could not put, so that it does not stand in the way of others. Allowed when memory is
-- full, which may be why.
--
-- KEYS     all parts of the queue
-- ARGV     5 id, 6 revision and 7 tick that the caller has seen (ms), 8 for how long (ms)
-- Returns  1, or 0 when another broker has claimed the tick, or the schedule has changed
-- Publishes  nothing
-- Twice    it waits a little longer
local id, tick_at = ARGV[FIRST], tonumber(ARGV[FIRST + 2])
local schedule = schedules.read(id)
if
  not schedule
  or schedule.revision ~= tonumber(ARGV[FIRST + 1])
  or schedules.tick_of(id, schedule) ~= tick_at
then
  return 0
end
schedule.postponed = tick_at
schedules.write(id, schedule)
schedules.set_tick(id, NOW + tonumber(ARGV[FIRST + 3]))
return 1
