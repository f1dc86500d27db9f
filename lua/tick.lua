#!lua
-- @include due
-- @include schedule
-- Claims what is due of a schedule, puts its jobs, and sets its next tick, in one step.
--
-- KEYS     all parts of the queue
-- ARGV     5 schedule's id, 6 revision and 7 tick that the caller has seen (ms), 8 next tick in ms ('': none), 9 how many
--          ticks are left out, 10 nonce (an integer; run i gets nonce + i),
--          then for each run: tick (ms), job id, spec, options as in put.lua
-- Returns  how many jobs were put; -1 when another broker has claimed the tick, or the schedule has changed
-- Publishes  nothing, to those who watch what it put; rings when a job is READY, or due before all others
-- Twice    the second time the tick is claimed
local id, next_tick = ARGV[FIRST], ARGV[FIRST + 3]
local schedule = schedules.read(id)
if
  not schedule
  or schedule.revision ~= tonumber(ARGV[FIRST + 1])
  or schedules.tick_of(id, schedule) ~= tonumber(ARGV[FIRST + 2])
then
  return -1
end
local STRIDE = 4
schedule.skipped = schedule.skipped + tonumber(ARGV[FIRST + 4])
local nonce = tonumber(ARGV[FIRST + 5])
local runs, n = 0, 0
for i = FIRST + 6, #ARGV, STRIDE do
  n = n + 1
  local options = ARGV[i + 3] ~= '' and cjson.decode(ARGV[i + 3]) or {}
  if schedules.run(schedule, tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], options, nonce + n, true) then
    runs = runs + 1
  end
end
schedules.plan(id, schedule, next_tick)
if commit() then
  ring()
end
return runs
