#!lua flags=allow-oom
-- @include schedule
-- Shows schedules; or, when none is named, the ids of all. A queue has a bounded number of them (--max-schedules). Which
-- of them stand on a page is for the caller to say: to sort 10,000 ids takes Lua half a second.
--
-- KEYS     all parts of the queue
-- ARGV     5 and on: ids
-- Returns  each schedule, as schedules.view says, or nil when there is none, until 3.5 MiB are reached, but always one; or
--          ids
-- Publishes  nothing
-- Twice    yes
local MAX_BYTES = 3.5 * 1024 * 1024

if not ARGV[FIRST] then
  return call('HKEYS', SCHEDULES)
end
local answer, bytes = {}, 0
for i = FIRST, #ARGV do
  local schedule = schedules.read(ARGV[i])
  bytes = bytes + (schedule and #schedule.definition or 0)
  if bytes > MAX_BYTES and #answer > 0 then
    break
  end
  append(answer, schedule and schedules.view(ARGV[i], schedule) or false)
end
return answer
