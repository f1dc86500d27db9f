#!lua flags=allow-oom
-- @include due
-- The states of many jobs at this moment, which is all that most looks of those who await them need: what is due has
-- moved.
--
-- KEYS     all parts of the queue
-- ARGV     5… ids
-- Returns  for each id 1 byte: the job's state, 0 when there is none
-- Publishes  what move_due publishes; rings as move_due makes jobs READY
-- Twice    yes
local ids = {}
for i = FIRST, #ARGV do
  ids[#ids + 1] = ARGV[i]
end
if move_due() then
  ring()
end
load(ids)
local answer = {}
for i, id in ipairs(ids) do
  local job = jobs[id]
  answer[i] = string.char(job and not is_over(job) and job[F_STATE] or 0)
end
return table.concat(answer)
