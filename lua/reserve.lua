#!lua flags=allow-oom
-- @include due
-- Hands jobs out: what is due moves first, then each claim in turn takes from the head of READY, and where there is
-- nothing left, and it says so, from what is due only later. A paused queue hands out nothing.
-- Allowed when memory is full: workers are what frees it.
--
-- KEYS     all parts of the queue
-- ARGV     5 name of the caller (a broker), 6 number of this call: the caller asks with a new number only after it has
--          got the answer to the one before
--          then for each claim: how many jobs, lease in ms (0: as the job says), worker id, available by (ms; '': now), how
--          many bytes the jobs may have together ('': any; negative: so many, but one job whatever it has)
-- Returns  1 sum of: 1 jobs remain in READY, 2 the queue is of mode simple, so the jobs are to be pulled,
--          2 how long until the next job is due or the next lease ends (ms, -1: nothing),
--          3 for each job 27 bytes: claim (2; 1 for the first), attempt (4), failures (2), fence (7), lease end (6, ms),
--          put at (6, ms); 4 the claims, of 2 bytes each, that got less because the next job has too many bytes;
--          5 the ids, in the order of the jobs, with newlines between them; then for each job: its spec, with its head
-- Publishes  completion events of jobs that expired, ends of leases; rings while jobs remain
-- Twice    a call of the same number gets the same jobs again, as far as their leases still run
local caller, number = ARGV[FIRST], ARGV[FIRST + 1]
local LAST_CALL = 'reserve:' .. caller
local STRIDE = 5
-- One call hands out no more bytes than this, but always one job: an answer then fits into the 4 MiB that gRPC clients
-- accept by default, and a broker's memory is bounded by its calls.
local MAX_BYTES = 3.5 * 1024 * 1024
-- What each job has in the answer beside its spec and id, and beside its lease: the queue's name.
local QUEUE_BYTES = 136
-- A call looks at so many jobs beyond those it was asked for: for each that it finds without a free slot, and holds.
local HOLD_BATCH = 200

-- In the order of handing out: ids, specs, what is answered of each, its claim, packed; fences grow by one each.
local taken, specs_taken, answers, claims, first_fence = {}, {}, {}, {}, nil
local outgrown = {} -- claims for which the next job had too many bytes, packed

local last = call('HGET', META, LAST_CALL)
last = last and cmsgpack.unpack(last)
local function answer_of(job)
  return struct.pack('>I4I2I7I6I6', job[F_ATTEMPT], job[F_FAILURES], job[F_FENCE], job[F_AT], job[F_PUT_AT])
end

if last and last[1] == number then
  -- {number, time, fence of the first job, their claims, their ids}
  local ids = {}
  for id in string.gmatch(last[5], '[^\n]+') do
    ids[#ids + 1] = id
  end
  load(ids)
  for i, id in ipairs(ids) do
    local job = jobs[id]
    if job and job[F_STATE] == RESERVED and job[F_FENCE] == last[3] + i - 1 and lease_runs(job) then
      local n = #taken + 1
      taken[n], specs_taken[n] = id, call('HGET', SPEC, id) or ''
      answers[n] = string.sub(last[4], 2 * i - 1, 2 * i) .. answer_of(job)
    end
  end
else
  move_due()

  local claim, left = 0, 0
  local position = FIRST + 2 - STRIDE
  local lease, worker, budget, takes_any
  -- What all plain jobs of the claim share: a score, and pieces of their records.
  local claim_bytes, lease_score, lease_end, used
  local function next_claim()
    repeat
      claim, position = claim + 1, position + STRIDE
      left = tonumber(ARGV[position] or -1)
    until left ~= 0
    claim_bytes, used = struct.pack('>I2', claim), nil
    lease, worker = tonumber(ARGV[position + 1] or 0), ARGV[position + 2]
    budget = tonumber(ARGV[position + 4] or '')
    takes_any = budget and budget < 0
    budget = takes_any and -budget or budget
  end
  next_claim()

  local wanted = 0
  local bytes, is_full = 0, false
  -- A claim whose bytes don't suffice gets no more, so that nothing overtakes the job that it cannot have.
  local function outgrow()
    outgrown[#outgrown + 1] = claim_bytes
    wanted = wanted - left
    next_claim()
  end

  local function fits(spec)
    local size = #spec - HEAD_BYTES
    while budget and size > budget and not takes_any do
      outgrow()
    end
    is_full = left < 0 or (bytes + size > MAX_BYTES and #taken > 0)
    return not is_full
  end

  local FIRST_ATTEMPT, FIRST_BYTE = '\0\0\0\1\0\0', string.char(RESERVED_BYTE)
  local reserved, leaving = {}, {}
  -- Of a plain job, no `job` is needed.
  local function hand_out(id, job, spec)
    local size = #spec - HEAD_BYTES
    bytes = bytes + size + #id + QUEUE_BYTES
    if budget then
      budget, takes_any = math.max(0, budget - size), false
    end
    local fence = tick('order', NOW)
    first_fence = first_fence or fence
    local n = #taken + 1
    taken[n], specs_taken[n], claims[n] = id, spec, claim_bytes
    if not job then
      if not used then
        local ends = NOW + (lease > 0 and lease or setting('lease'))
        lease_score, lease_end = string.format('%d', ends), struct.pack('>I6', ends)
        used = struct.pack('>I6BBI6Bc0', NOW, 0, 0, 0, #worker, worker)
        note_head(RESERVED_SET, ends)
      end
      local fence_bytes = struct.pack('>I7', fence)
      local m = #reserved
      reserved[m + 1], reserved[m + 2] = lease_score, id
      states[m + 1] = id
      states[m + 2] = FIRST_BYTE
        .. string.sub(spec, 1, 1)
        .. FIRST_ATTEMPT
        .. string.sub(spec, 2, 8)
        .. lease_end
        .. fence_bytes
        .. string.sub(spec, 9, HEAD_BYTES)
        .. used
      leaving[m / 2 + 1] = id
      answers[n] = claim_bytes .. FIRST_ATTEMPT .. fence_bytes .. lease_end .. string.sub(spec, 9, 14)
    else
      local policy = job[F_UNPACKED]
      local run_timeout = policy and policy[P_RUN_TIMEOUT]
      local ms = lease > 0 and lease or policy and policy[P_LEASE] or setting('lease')
      job[F_ATTEMPT] = job[F_ATTEMPT] + 1
      job[F_FENCE] = fence
      job[F_WORKER] = worker
      job[F_RESERVED_AT] = NOW
      job[F_RELEASED] = 0
      job[F_FINISHED_AT] = 0
      -- Setting a field that is not there to nil would make it.
      if job[F_HOLDER] then
        job[F_HOLDER] = nil
      end
      if job[F_PROGRESS] then
        job[F_PROGRESS] = nil
      end
      move(id, RESERVED, NOW + (run_timeout and math.min(ms, run_timeout) or ms), 'reserve')
      answers[n] = claim_bytes .. answer_of(job)
    end
    left = left - 1
    if left == 0 then
      next_claim()
    end
  end

  local function finds_slot(job)
    with_keys()
    return slots.finds(job)
  end

  -- READY jobs are handed out, held for want of a slot, or buried because nobody came for them in time.
  local aside, takes_plain = 0, false
  local function try(id, spec, record)
    if record then
      take(id, record)
    elseif record == false and spec then
      if takes_plain and #spec >= HEAD_BYTES then
        if fits(spec) then
          hand_out(id, nil, spec)
        end
        return
      end
      jobs[id] = fresh_of(spec) or false
    end
    local job = jobs[id]
    local expires_in = job and job[F_ATTEMPT] == 0 and policy_of(job, P_EXPIRES_IN)
    if not job or job[F_STATE] ~= READY or not spec then
      set_aside(READY_SET, id)
      aside = aside + 1
    elseif expires_in and NOW >= time_of(job[F_ORDER]) + expires_in then
      local detail = string.format(ERROR_DETAIL, 'JOB_EXPIRED', 'no worker was free before expires_in had passed')
      bury(id, job, REASON_JOB_EXPIRED, 'lapse', detail)
    elseif job[F_UNPACKED] and not finds_slot(job) then
      move(id, HELD, job[F_AT], 'hold')
    elseif fits(spec) then
      hand_out(id, job, spec)
    end
  end

  if not settings.paused then
    for i = FIRST + 2, #ARGV, STRIDE do
      wanted = wanted + tonumber(ARGV[i])
    end
  end
  takes_plain = wanted >= PLAIN_WORTH and not is_watched
  local seen, tried, most = 0, 0, wanted + HOLD_BATCH
  local is_empty = wanted == 0
  while not is_empty and not is_full and #taken < wanted and seen < most do
    local asked = math.min(wanted - #taken, most - seen)
    -- What was set aside has left already; the rest stays until the commit.
    local ids = call('ZRANGE', READY_SET, seen - aside, seen - aside + asked - 1)
    local records = read(ids)
    -- Read in pieces that grow with what is handed out, so that not much more is read: the specs of jobs that are held
    -- instead are read for nothing.
    local specs_read = {}
    for i, id in ipairs(ids) do
      if specs_read[i] == nil then
        local piece = math.min(4 + 3 * #taken, 1000)
        local specs = call('HMGET', SPEC, unpack(ids, i, math.min(i + piece - 1, #ids)))
        for n = 1, #specs do
          specs_read[i + n - 1] = specs[n]
        end
      end
      try(id, specs_read[i], records and records[i])
      -- The claims may be at their end before these are, where their bytes were.
      if is_full then
        break
      end
      tried = tried + 1
      if left < 0 then
        break
      end
    end
    seen = seen + #ids
    is_empty = #ids < asked
  end

  -- What is due until the latest time that a claim says, the earliest first: read once, for all claims.
  local function read_ahead()
    local latest = 0
    for i = FIRST + 2, #ARGV, STRIDE do
      latest = math.max(latest, tonumber(ARGV[i + 3]) or 0)
    end
    local ahead = {}
    for state, set in pairs({ [SCHEDULED] = SCHEDULED_SET, [RETRYING] = RETRYING_SET }) do
      local members = call('ZRANGE', set, '-inf', latest, 'BYSCORE', 'LIMIT', 0, wanted - #taken + HOLD_BATCH)
      for place, id in ipairs(load_members(set, state, members)) do
        ahead[#ahead + 1] = { jobs[id][F_AT], state, place, id }
      end
    end
    table.sort(ahead, function(a, b)
      for i = 1, 3 do
        if a[i] ~= b[i] then
          return a[i] < b[i]
        end
      end
      return false
    end)
    return ahead
  end

  -- What is due until `by`. A job without a slot stays where it is until its time has come.
  local ahead, first_ahead
  local function take_ahead(by)
    if not ahead then
      ahead, first_ahead = read_ahead(), 1
    end
    local of_claim = claim
    for i = first_ahead, #ahead do
      local due, state, id = ahead[i][1], ahead[i][2], ahead[i][4]
      if claim ~= of_claim or is_full or due > by then
        break
      end
      local job = jobs[id]
      -- Else an earlier claim has taken it.
      if job[F_STATE] == state then
        local spec = finds_slot(job) and call('HGET', SPEC, id)
        if spec and budget and #spec - HEAD_BYTES > budget and not takes_any then
          -- The next claim may not want what is due so late.
          outgrow()
        elseif spec and fits(spec) then
          promote(id, job, order_at(due))
          hand_out(id, job, spec)
          job[F_FINISHED_AT] = due
        end
      elseif i == first_ahead then
        first_ahead = i + 1
      end
    end
    if claim == of_claim then
      next_claim()
    end
  end
  while is_empty and wanted > 0 and not is_full and left > 0 do
    local by = tonumber(ARGV[position + 3])
    if by then
      take_ahead(by)
    else
      next_claim()
    end
  end

  if #leaving > 0 then
    into[RESERVED_SET] = reserved
    -- Where all that stood at the head of READY has been handed out, it leaves as one range.
    if #leaving == tried and aside == 0 then
      call('ZREMRANGEBYRANK', READY_SET, 0, tried - 1)
    else
      out[READY_SET] = leaving
    end
  end
  commit()
  if first_fence then
    local record = { number, NOW, first_fence, table.concat(claims), table.concat(taken, '\n') }
    call('HSET', META, LAST_CALL, cmsgpack.pack(record))
  end
end

local remain = not settings.paused and call('ZCARD', READY_SET) > 0
if remain then
  ring()
end

local flags = (remain and 1 or 0) + (settings.mode == 'simple' and 2 or 0)
local answer = { flags, next_due(), table.concat(answers), table.concat(outgrown), table.concat(taken, '\n') }
for i = 1, #specs_taken do
  answer[5 + i] = specs_taken[i]
end
return answer
