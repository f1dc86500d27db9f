#!lua
-- @include due
-- Stores what workers say of how far they have come. It is part of the reservation, and gone with it.
--
-- KEYS     all parts of the queue
-- ARGV     for each report, 5 and on: id, fence, percent, note; of reports of one job the last one stays
-- Returns  for each report one byte: 1 stored, 0 the lease is lost
-- Publishes  nothing
-- Twice    yes
local STRIDE = 4
local ids = {}
for i = FIRST, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[i]
end
load(ids)

local answer = {}
for n, id in ipairs(ids) do
  local at = FIRST + (n - 1) * STRIDE
  local job = jobs[id]
  local is_held = job and job[F_FENCE] == tonumber(ARGV[at + 1]) and job[F_STATE] == RESERVED and lease_runs(job)
  if is_held then
    job[F_PROGRESS] = struct.pack(PROGRESS, tonumber(ARGV[at + 2]), NOW) .. ARGV[at + 3]
    move(id, RESERVED, job[F_AT], 'report')
  end
  answer[n] = string.char(is_held and 1 or 0)
end
commit()
return table.concat(answer)
