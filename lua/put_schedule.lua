#!lua
-- @include schedule
-- Makes a schedule, or changes it; what it has done so far stays.
--
-- KEYS     all parts of the queue
-- ARGV     5 id, 6 revision that the caller has seen (0: there was none), 7 revision to be, 8 definition (opaque), 9 '1'
--          when a run is left out while the one before has not finished, else '', 10 '1' when paused, else '', 11 next tick
--          in ms ('': none; 'kept': it stays), 12 where its intervals begin (ms), 13 how many schedules a queue may have
-- Returns  1 created (1), changed (0), too many (-1), or it has changed since the caller saw it (-2), 2 the schedule, as
--          schedules.view says
-- Publishes  nothing
-- Twice    the second time it has the revision already
local id, seen, revision = ARGV[FIRST], tonumber(ARGV[FIRST + 1]), tonumber(ARGV[FIRST + 2])
local next_tick = ARGV[FIRST + 6]
local schedule = schedules.read(id)
if schedule and schedule.revision == revision then
  return { seen == 0 and 1 or 0, schedules.view(id, schedule) }
elseif seen ~= (schedule and schedule.revision or 0) then
  return { -2 }
elseif not schedule and call('HLEN', SCHEDULES) >= tonumber(ARGV[FIRST + 8]) then
  return { -1 }
end
schedule = schedule or {
  created_at = NOW,
  last_run_at = 0,
  last_job = '',
  runs = 0,
  skipped = 0,
}
schedule.revision = revision
schedule.definition = ARGV[FIRST + 3]
schedule.skip_overlap = ARGV[FIRST + 4] == '1'
schedule.paused = ARGV[FIRST + 5] == '1'
schedule.starts_at = tonumber(ARGV[FIRST + 7])
schedule.updated_at = NOW
if next_tick == 'kept' then
  schedules.write(id, schedule)
else
  schedules.plan(id, schedule, next_tick)
end
return { seen == 0 and 1 or 0, schedules.view(id, schedule) }
