#!lua flags=allow-oom
-- @include schedule
-- Pauses a schedule, or resumes it. Allowed when memory is full: so a schedule can be stopped.
--
-- KEYS     all parts of the queue
-- ARGV     5 id, 6 revision that the caller has seen, 7 revision to be, 8 '1' to pause, else '', 9 next tick in ms ('': none)
-- Returns  1 changed, 0 it was so already, -1 no such schedule, -2 it has changed since the caller saw it
-- Publishes  nothing
-- Twice    the second time it has the revision already
local id, revision, paused = ARGV[FIRST], tonumber(ARGV[FIRST + 2]), ARGV[FIRST + 3] == '1'
local schedule = schedules.read(id)
if not schedule then
  return -1
elseif schedule.revision == revision then
  return 1
elseif schedule.paused == paused then
  return 0
elseif schedule.revision ~= tonumber(ARGV[FIRST + 1]) then
  return -2
end
schedule.revision = revision
schedule.paused = paused
schedule.updated_at = NOW
schedules.plan(id, schedule, ARGV[FIRST + 4])
return 1
