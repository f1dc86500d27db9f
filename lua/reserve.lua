#!lua flags=allow-oom
-- @include due
-- Hands jobs out: what is due moves first, then each claim in turn takes from the head of READY.
-- Allowed when memory is full: workers are what frees it.
--
-- KEYS     all parts of the queue
-- ARGV     5 name of the caller (a broker), 6 number of this call: the caller asks with a new number only after it has
--          got the answer to the one before
--          then for each claim: how many jobs, lease in ms (0: as the job says), worker id
-- Returns  1 jobs remain in READY (1) or not (0), 2 how long until the next job is due or the next lease ends (ms, -1: nothing),
--          3 for each job 27 bytes: claim (2; 1 for the first), attempt (4), failures (2), fence (7), lease end (6, ms),
--          put at (6, ms); then for each job: id, spec
-- Publishes  completion events of jobs that expired, ends of leases; rings while jobs remain
-- Twice    a call of the same number gets the same jobs again, as far as their leases still run
local caller, number = ARGV[FIRST], ARGV[FIRST + 1]
local LAST_CALL = 'reserve:' .. caller
local STRIDE = 3
-- One call hands out no more bytes than this, but always one job: an answer then fits into the 4 MiB that gRPC clients
-- accept by default, and a broker's memory is bounded by its calls.
local MAX_BYTES = 3.5 * 1024 * 1024

local taken = {} -- {claim, id, spec} in the order of handing out

local last = call('HGET', META, LAST_CALL)
last = last and cmsgpack.unpack(last)
if last and last[1] == number then
  local ids = {}
  for i = 3, #last, 3 do
    ids[#ids + 1] = last[i + 1]
  end
  load(ids)
  for i = 3, #last, 3 do
    local job = jobs[last[i + 1]]
    if job and job[F_STATE] == RESERVED and job[F_FENCE] == last[i + 2] and job[F_AT] > NOW then
      taken[#taken + 1] = { last[i], last[i + 1], call('HGET', SPEC, last[i + 1]) }
    end
  end
else
  move_due()
  local record = { number, NOW }

  local claim, left = 0, 0
  local position = FIRST + 2 - STRIDE
  local lease, worker
  local function next_claim()
    repeat
      claim, position = claim + 1, position + STRIDE
      left = tonumber(ARGV[position] or -1)
    until left ~= 0
    lease, worker = tonumber(ARGV[position + 1] or 0), ARGV[position + 2]
  end
  next_claim()

  local wanted = 0
  for i = FIRST + 2, #ARGV, STRIDE do
    wanted = wanted + tonumber(ARGV[i])
  end
  local ids = wanted > 0 and call('ZRANGE', READY_SET, 0, wanted - 1) or {}
  load(ids)
  -- Read in growing pieces, so that no more is read than about twice of what is handed out.
  local specs_read, piece, bytes = {}, 4, 0
  for i, id in ipairs(ids) do
    local job = jobs[id]
    if not specs_read[i] then
      local read = call('HMGET', SPEC, unpack(ids, i, math.min(i + piece - 1, #ids)))
      for n = 1, #read do
        specs_read[i + n - 1] = read[n]
      end
      piece = math.min(piece * 4, 1000)
    end
    bytes = bytes + #specs_read[i]
    if bytes > MAX_BYTES and #taken > 0 then
      break
    end
    local expires_in = job[F_ATTEMPT] == 0 and policy_of(job, P_EXPIRES_IN)
    if expires_in and NOW >= time_of(job[F_ORDER]) + expires_in then
      local detail = string.format(ERROR_DETAIL, 'JOB_EXPIRED', 'no worker was free before expires_in had passed')
      bury(id, job, REASON_JOB_EXPIRED, 'lapse', detail)
    else
      local run_timeout = policy_of(job, P_RUN_TIMEOUT)
      local ms = lease > 0 and lease or policy_of(job, P_LEASE) or defaults().lease
      job[F_ATTEMPT] = job[F_ATTEMPT] + 1
      job[F_FENCE] = tick('order', NOW)
      job[F_WORKER] = worker
      job[F_RESERVED_AT] = NOW
      job[F_RELEASED] = 0
      job[F_FINISHED_AT] = 0
      move(id, RESERVED, NOW + (run_timeout and math.min(ms, run_timeout) or ms), 'reserve')
      taken[#taken + 1] = { claim, id, specs_read[i] }
      record[#record + 1] = claim
      record[#record + 1] = id
      record[#record + 1] = job[F_FENCE]
      left = left - 1
      if left == 0 then
        next_claim()
      end
    end
  end
  commit()
  if #ids > 0 then
    call('HSET', META, LAST_CALL, cmsgpack.pack(record))
  end
end

local remain = call('ZCARD', READY_SET) > 0
if remain then
  ring()
end

local answer, n = { remain and 1 or 0, next_due(), '' }, 3
local numbers = {}
for i, entry in ipairs(taken) do
  local job = jobs[entry[2]]
  numbers[i] =
    struct.pack('>I2I4I2I7I6I6', entry[1], job[F_ATTEMPT], job[F_FAILURES], job[F_FENCE], job[F_AT], job[F_PUT_AT])
  answer[n + 1], answer[n + 2] = entry[2], entry[3]
  n = n + 2
end
answer[3] = table.concat(numbers)
return answer
