#!lua flags=allow-oom
-- @include due
-- Lets leases end a given time from now, sooner or later than they would have; never after a job's run_timeout.
-- Allowed when memory is full: it adds nothing.
--
-- KEYS     all parts of the queue
-- ARGV     5 lease in ms (0: it ends now), then for each lease: id, fence
-- Returns  1 how long until the next job is due or the next lease ends (ms, -1: nothing), then for each lease its end (ms), 0 when
--          it is lost, 1 when it is lost because the job's run_timeout was over
-- Publishes  nothing
-- Twice    the second time counts from its own now
local lease = tonumber(ARGV[FIRST])
local STRIDE = 2
local ids = {}
for i = FIRST + 1, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[i]
end
load(ids)

local answer = { -1 }
for n, id in ipairs(ids) do
  local job, fence = jobs[id], tonumber(ARGV[FIRST + 2 + (n - 1) * STRIDE])
  local ends = 0
  if job and job[F_FENCE] == fence then
    local run_ends = run_ends_at(job)
    if job[F_STATE] == RESERVED and job[F_AT] > NOW then
      ends = math.min(NOW + lease, run_ends or math.huge)
      move(id, RESERVED, ends, 'extend')
    elseif run_ends and NOW >= run_ends and job[F_RELEASED] == 0 then
      ends = 1
    end
  end
  answer[#answer + 1] = ends
end
commit()
answer[1] = next_due()
return answer
