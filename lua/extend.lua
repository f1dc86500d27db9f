#!lua flags=allow-oom
-- @include due
-- Lets leases end a given time from now, sooner or later than they would have; never after a job's run_timeout.
-- Allowed when memory is full: it adds nothing but a stream's number.
--
-- A lease is kept by one stream: the one that got it, until another takes it over (a worker that has lost its connection
-- resumes its jobs, maybe at another broker). From then on the first one's extensions change nothing, neither those by
-- which a broker that has not seen the connection die would go on keeping it, nor the one by which it gives the lease up.
--
-- KEYS     all parts of the queue
-- ARGV     5 lease in ms (0: it ends now), 6 '1' when these leases are taken over, '2' when they are renewed, which makes
--          none shorter than its worker has made it, else ''
--          then for each lease: id, fence, number of the stream that keeps it, or takes it over (0: the one that got it;
--          '': whoever keeps it, it is to be extended)
-- Returns  1 how long until the next job is due or the next lease ends (ms, -1: nothing), then for each lease its end (ms), 0 when
--          it is lost, 1 when it is lost because the job's run_timeout was over, 2 when another stream has taken it over;
--          when leases are taken over, after each how many bytes the job has
-- Publishes  what was taken over, on the channel of the ends of leases
-- Twice    the second time counts from its own now
local lease, takes, renews = tonumber(ARGV[FIRST]), ARGV[FIRST + 1] == '1', ARGV[FIRST + 1] == '2'
local STRIDE = 3
local ids = {}
for i = FIRST + 2, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[i]
end
load(ids)

local TAKEN_OVER = 2

-- Those that keep it for another stream hear that they no longer do.
local function take_over(id, job, holder)
  if (job[F_HOLDER] or 0) ~= holder then
    job[F_HOLDER] = holder
    local numbers = { fence = string.format('%d', job[F_FENCE]), holder = string.format('%d', holder) }
    publish(LEASES, cjson.encode({ id = id, fence = numbers.fence, reason = 'RESUMED', holder = numbers.holder }))
  end
end

local answer = { -1 }
for n, id in ipairs(ids) do
  local at = FIRST + 2 + (n - 1) * STRIDE
  local job, fence, holder = jobs[id], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local ends = 0
  if job and job[F_FENCE] == fence then
    local run_ends = run_ends_at(job)
    if job[F_STATE] == RESERVED and lease_runs(job) then
      if takes then
        take_over(id, job, holder)
      end
      if holder and (job[F_HOLDER] or 0) ~= holder then
        ends = TAKEN_OVER
      else
        ends = math.min(renews and math.max(NOW + lease, job[F_AT]) or NOW + lease, run_ends or math.huge)
        move(id, RESERVED, ends, 'extend')
      end
    elseif run_ends and NOW >= run_ends and job[F_RELEASED] == 0 then
      ends = 1
    end
  end
  answer[#answer + 1] = ends
  if takes then
    answer[#answer + 1] = math.max(0, call('HSTRLEN', SPEC, id) - HEAD_BYTES)
  end
end
commit()
answer[1] = next_due()
return answer
