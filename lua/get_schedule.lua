#!lua flags=allow-oom
-- @include schedule
-- Shows a schedule.
--
-- KEYS     all parts of the queue
-- ARGV     5 id
-- Returns  nil when there is none, else 1 the time (ms), 2 the schedule, as schedules.view says
-- Publishes  nothing
-- Twice    yes
local schedule = schedules.read(ARGV[FIRST])
if not schedule then
  return false
end
return { NOW, schedules.view(ARGV[FIRST], schedule) }
