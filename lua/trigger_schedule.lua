#!lua
-- @include due
-- @include schedule
-- Puts a schedule's job now, beside its ticks, whether it is paused or overlaps.
--
-- KEYS     all parts of the queue
-- ARGV     5 schedule's id, 6 revision that the caller has seen, 7 nonce, 8 job id, 9 spec, 10 options as in put.lua
-- Returns  1 put, -1 no such schedule, -2 it has changed since the caller saw it; or, when its unique key is taken, an array:
--          the state and the id of the job that keeps it
-- Publishes  nothing, to those who watch what it put; rings when a job is READY, or due before all others
-- Twice    a job with this id was put by this very call
local id, job_id = ARGV[FIRST], ARGV[FIRST + 3]
local schedule = schedules.read(id)
if not schedule then
  return -1
elseif schedule.revision ~= tonumber(ARGV[FIRST + 1]) then
  return -2
end
load({ job_id })
if jobs[job_id] then
  return 1
end
local options = ARGV[FIRST + 5] ~= '' and cjson.decode(ARGV[FIRST + 5]) or {}
if not schedules.run(schedule, NOW, job_id, ARGV[FIRST + 4], options, tonumber(ARGV[FIRST + 2]), false) then
  local keeper = unique.keeper({ [F_UNPACKED] = options.policy })
  load({ keeper })
  return { jobs[keeper] and jobs[keeper][F_STATE] or COMPLETED, keeper }
end
schedules.write(id, schedule)
if commit() then
  ring()
end
return 1
