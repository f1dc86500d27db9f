-- @include queue
-- @include order
-- Jobs as a script works on them. A script loads the jobs it needs, changes them in memory, and writes all of them
-- with one commit(): so everything is checked before anything changes, and every command is variadic over the batch.
--
-- The state of a job is packed with Lua's struct, in the order of the fields below, and this is its only codec. It took
-- 0.46 µs to pack and 0.32 µs to unpack where MessagePack took 1.32 and 0.79. Most jobs wait and have never been
-- reserved: they end with F_NONCE, 15 bytes and a worker's name sooner.
local F_STATE, F_PRIORITY, F_ATTEMPT, F_FAILURES, F_ORDER = 1, 2, 3, 4, 5
-- SCHEDULED, RETRYING: when due (kept when it becomes READY). RESERVED: when the lease ends. COMPLETED: until when it
-- is kept. FAILED: since when. Else 0. In ms.
local F_AT = 6
-- The fencing number of the last reservation; 0 before the first.
local F_FENCE = 7
local F_PUT_AT = 8
-- Which put made it, so that a put run twice is recognised.
local F_NONCE = 9
local F_RESERVED_AT = 10
-- The state into which its holder released it, or 0 while nobody has: what a repeated release is answered.
local F_RELEASED = 11
-- How the last failed attempt failed (REASON_…), or why the job lapsed; 0: none failed, or it is COMPLETED.
local F_REASON = 12
local F_FINISHED_AT = 13
-- The worker's id; '' before the first reservation.
local F_WORKER = 14
-- What the job asked for that differs from the defaults: MessagePack of an array with the fields P_…, or ''.
local F_POLICY = 15

local FRESH = '>BBI4I2I7I6I7I6I5'
local USED = '>I6BBI6Bc0'
-- Added to the state, in the first byte, where the fields of USED follow.
local IS_USED = 64

local P_LEASE, P_RUN_TIMEOUT, P_RETENTION, P_EXPIRES_IN, P_RETRY = 1, 2, 3, 4, 5
local R_MAX_ATTEMPTS, R_INITIAL, R_MAX, R_MULTIPLIER, R_JITTER = 1, 2, 3, 4, 5

local function decode(packed)
  if string.byte(packed) < IS_USED then
    local state, priority, attempt, failures, order, at, fence, put_at, nonce, next = struct.unpack(FRESH, packed)
    return {
      state, priority, attempt, failures, order, at, fence, put_at, nonce, 0, 0, 0, 0, '', string.sub(packed, next),
    }
  end
  local job = { struct.unpack(FRESH .. USED, packed) }
  job[F_STATE] = job[F_STATE] - IS_USED
  job[F_POLICY] = string.sub(packed, job[F_POLICY])
  return job
end

local function encode(job)
  if job[F_FENCE] == 0 and job[F_FINISHED_AT] == 0 then
    return struct.pack(FRESH, unpack(job, 1, F_NONCE)) .. job[F_POLICY]
  end
  return struct.pack(FRESH, job[F_STATE] + IS_USED, unpack(job, 2, F_NONCE))
    .. struct.pack(USED, job[F_RESERVED_AT], job[F_RELEASED], job[F_REASON], job[F_FINISHED_AT], #job[F_WORKER], job[F_WORKER])
    .. job[F_POLICY]
end

-- As in src/model/states.ts and in the proto.
local SCHEDULED, READY, RESERVED, RETRYING, COMPLETED, FAILED = 1, 2, 4, 5, 6, 7

-- As in src/model/states.ts.
local REASON_RELEASED, REASON_LEASE_EXPIRED, REASON_JOB_EXPIRED = 1, 2, 3

local SET_OF = {
  [SCHEDULED] = SCHEDULED_SET,
  [READY] = READY_SET,
  [RESERVED] = RESERVED_SET,
  [RETRYING] = RETRYING_SET,
  [COMPLETED] = COMPLETED_SET,
  [FAILED] = FAILED_SET,
}

local jobs = {} -- id → job, or false when there is none
-- A job that changes also carries where it stood before: a set, or false when it was not there; and its member.
local F_WAS_SET, F_WAS_MEMBER = 16, 17
local changed, changes = {}, 0 -- ids, in the order of their first change
-- Lists of arguments for the commit, made as the changes are: appending to a list is much cheaper than to a table by id.
local out = {} -- set → members to be removed
local specs, results, gone, results_gone = {}, {}, {}, {}
local messages = {} -- channel, text, channel, text …

-- Where a job stands: the member it has in the sorted set of its state. Scheduled jobs of one due time stand in the
-- order of their insertion, which a sorted set gives only by member: so their order, in hex, precedes the id.
local ORDER_DIGITS = 13
local function member_of(id, job)
  if job[F_STATE] == SCHEDULED then
    return string.format('%013x', job[F_ORDER]) .. id
  end
  return id
end

local function id_of_scheduled(member)
  return string.sub(member, ORDER_DIGITS + 1)
end

-- As text, because '%d' takes half the time of the '%.17g' by which Redis would write the number.
local PRIORITY_STEP = 2 ^ 49
local function score_of(job)
  if job[F_STATE] == READY then
    return string.format('%d', (9 - job[F_PRIORITY]) * PRIORITY_STEP + job[F_ORDER])
  end
  return string.format('%d', job[F_AT])
end

-- Reads the jobs of these ids which this script has not read yet.
local function load(ids)
  local missing = {}
  for i = 1, #ids do
    local id = ids[i]
    if jobs[id] == nil then
      missing[#missing + 1] = id
      jobs[id] = false
    end
  end
  if #missing > 0 then
    local packed = get_many(STATE, missing)
    for i = 1, #missing do
      jobs[missing[i]] = packed[i] and decode(packed[i])
    end
  end
end

local function append(list, value)
  list[#list + 1] = value
end

-- What is to leave this set.
local function leave(set, member)
  local members = out[set]
  if members then
    append(members, member)
  else
    out[set] = { member }
  end
end

local function remember_place(id, job)
  if job[F_WAS_SET] == nil then
    job[F_WAS_SET] = SET_OF[job[F_STATE]]
    job[F_WAS_MEMBER] = member_of(id, job)
    changes = changes + 1
    changed[changes] = id
  end
end

-- The one function that changes a job's state. `cause` names the transition as in src/model/states.ts, where it must
-- be listed with these states; a test holds the two against each other.
local function move(id, to, at, cause)
  local job = jobs[id]
  remember_place(id, job)
  job[F_STATE] = to
  job[F_AT] = at
end

-- The job is gone at the commit; until then, to this script, it is there no more.
local function remove(id, cause)
  local job = jobs[id]
  local set = job[F_WAS_SET]
  if set == nil then
    set = SET_OF[job[F_STATE]]
    leave(set, member_of(id, job))
  elseif set then
    leave(set, job[F_WAS_MEMBER])
  end
  jobs[id] = false
  append(gone, id)
end

-- Puts a new job in the place of whatever has that id.
local function create(id, job, spec)
  local old = jobs[id]
  if old then
    remember_place(id, old)
    job[F_WAS_SET], job[F_WAS_MEMBER] = old[F_WAS_SET], old[F_WAS_MEMBER]
    append(results_gone, id)
  else
    job[F_WAS_SET] = false
    changes = changes + 1
    changed[changes] = id
  end
  jobs[id] = job
  append(specs, id)
  append(specs, spec)
end

-- The result of a completed job, or the error of one that failed; '' for none.
local function keep_result(id, bytes)
  if bytes ~= '' then
    append(results, id)
    append(results, bytes)
  else
    append(results_gone, id)
  end
end

local EVENTS, LEASES = CHANNEL .. 'events', CHANNEL .. 'leases'
local function publish(channel, text)
  append(messages, channel)
  append(messages, text)
end

-- Writes what has changed, and forgets it: a script may load, change and commit again.
-- Returns whether a worker may have something to do earlier than it knows.
local function commit()
  local into, states = {}, {}
  local ready, waiting = false, nil
  local n = 0
  for i = 1, changes do
    local id = changed[i]
    local job = jobs[id]
    if job then
      local set, member = SET_OF[job[F_STATE]], member_of(id, job)
      local before = job[F_WAS_SET]
      if before and (before ~= set or job[F_WAS_MEMBER] ~= member) then
        leave(before, job[F_WAS_MEMBER])
      end
      job[F_WAS_SET], job[F_WAS_MEMBER] = nil, nil
      n = n + 2
      states[n - 1], states[n] = id, encode(job)
      local list = into[set]
      if not list then
        list = {}
        into[set] = list
      end
      local length = #list
      list[length + 1], list[length + 2] = score_of(job), member
      if set == READY_SET then
        ready = true
      elseif set == SCHEDULED_SET or set == RETRYING_SET then
        waiting = waiting or {}
        waiting[member] = true
      end
    end
  end
  for set, members in pairs(out) do
    call_in_pieces('ZREM', set, members, 1)
  end
  for set, members in pairs(into) do
    call_in_pieces('ZADD', set, members, 2)
  end
  call_in_pieces('HDEL', STATE, gone, 1)
  call_in_pieces('HDEL', SPEC, gone, 1)
  call_in_pieces('HDEL', RESULT, gone, 1)
  call_in_pieces('HDEL', RESULT, results_gone, 1)
  call_in_pieces('HSET', STATE, states, 2)
  call_in_pieces('HSET', SPEC, specs, 2)
  call_in_pieces('HSET', RESULT, results, 2)
  write_clocks()
  for i = 1, #messages, 2 do
    call('PUBLISH', messages[i], messages[i + 1])
  end
  changed, changes, out, specs, results, gone, results_gone, messages = {}, 0, {}, {}, {}, {}, {}, {}

  if not ready and waiting then
    for _, set in ipairs({ SCHEDULED_SET, RETRYING_SET }) do
      local head = call('ZRANGE', set, 0, 0)[1]
      ready = ready or (head and waiting[head]) or false
    end
  end
  return ready
end

-- The doorbell: at most one token, and never a job.
local function ring()
  if call('LLEN', WAKE) == 0 then
    call('LPUSH', WAKE, '1')
  end
end

-- What the job itself asked for; nil when it did not.
local function policy_of(job, field)
  local packed = job[F_POLICY]
  return packed ~= '' and cmsgpack.unpack(packed)[field] or nil
end

-- A completed job whose retention has ended is gone, whether sweep has come by or not.
local function is_over(job)
  return job[F_STATE] == COMPLETED and job[F_AT] <= NOW
end

local function retry_of(job)
  return policy_of(job, P_RETRY) or defaults().retry
end

-- Tells the broker that keeps this lease for a stream, if one does, that it is over.
-- reason: DELETED, EXPIRED, RUN_TIMEOUT, or RELEASED (by a call to another broker).
local function announce_end(id, job, reason)
  publish(LEASES, cjson.encode({ id = id, fence = string.format('%d', job[F_FENCE]), reason = reason }))
end
