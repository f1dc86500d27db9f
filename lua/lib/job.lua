-- @include queue
-- @include order
-- Jobs as a script works on them. A script loads the jobs it needs, changes them in memory, and writes all of them
-- with one commit(): so everything is checked before anything changes, and every command is variadic over the batch.
--
-- The state of a job is a MessagePack array, with the fields below. This is its only codec. false: not set.
local F_STATE, F_ATTEMPT, F_ORDER, F_PRIORITY = 1, 2, 3, 4
-- SCHEDULED, RETRYING: when due (kept when it becomes READY). RESERVED: when the lease ends. COMPLETED: until when it
-- is kept. FAILED: since when. Else 0. In ms.
local F_AT = 5
-- The fencing number of the last reservation; 0 before the first.
local F_FENCE = 6
local F_FAILURES, F_PUT_AT = 7, 8
-- Which put made it, so that a put run twice is recognised.
local F_NONCE = 9
-- What the job asked for that differs from the defaults, or false: the fields P_….
local F_POLICY = 10
local F_WORKER, F_RESERVED_AT = 11, 12
-- The state into which its holder released it, or 0 while nobody has: what a repeated release is answered.
local F_RELEASED = 13
-- For FAILED: why (REASON_…), else 0.
local F_REASON = 14
local F_FINISHED_AT = 15

local P_LEASE, P_RUN_TIMEOUT, P_RETENTION, P_EXPIRES_IN, P_RETRY = 1, 2, 3, 4, 5
local R_MAX_ATTEMPTS, R_INITIAL, R_MAX, R_MULTIPLIER, R_JITTER = 1, 2, 3, 4, 5

-- As in src/model/states.ts and in the proto.
local SCHEDULED, READY, RESERVED, RETRYING, COMPLETED, FAILED = 1, 2, 4, 5, 6, 7

-- As in src/model/states.ts: why a job is in the dead letter.
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
local changed = {} -- ids, in the order of their first change
local was = {} -- id → {set, member} where the job stood before, or false
local specs, results = {}, {} -- id → bytes to be written; false: to be removed
local messages = {} -- {channel, text}, published after the writes

-- Where a job stands: the member it has in the sorted set of its state. Scheduled jobs of one due time stand in the
-- order of their insertion, which a sorted set gives only by member: so their order, in hex, precedes the id.
local ORDER_DIGITS = 13
local function member_of(id, job)
  if job[F_STATE] == SCHEDULED then
    return string.format('%0' .. ORDER_DIGITS .. 'x', job[F_ORDER]) .. id
  end
  return id
end

local function id_of_scheduled(member)
  return string.sub(member, ORDER_DIGITS + 1)
end

local PRIORITY_STEP = 2 ^ 49
local function score_of(job)
  if job[F_STATE] == READY then
    return (9 - job[F_PRIORITY]) * PRIORITY_STEP + job[F_ORDER]
  end
  return job[F_AT]
end

-- Reads the jobs of these ids which this script has not read yet.
local function load(ids)
  local missing = {}
  for _, id in ipairs(ids) do
    if jobs[id] == nil then
      missing[#missing + 1] = id
      jobs[id] = false
    end
  end
  if #missing > 0 then
    for i, packed in ipairs(get_many(STATE, missing)) do
      jobs[missing[i]] = packed and cmsgpack.unpack(packed)
    end
  end
end

local function remember_place(id)
  if was[id] == nil then
    local job = jobs[id]
    was[id] = job and { SET_OF[job[F_STATE]], member_of(id, job) } or false
    changed[#changed + 1] = id
  end
end

-- The one function that changes a job's state. `cause` names the transition as in src/model/states.ts, where it must
-- be listed with these states; a test holds the two against each other.
local function move(id, to, at, cause)
  remember_place(id)
  local job = jobs[id]
  job[F_STATE] = to
  job[F_AT] = at
end

-- Puts a new job in the place of whatever has that id.
local function create(id, job, spec)
  remember_place(id)
  jobs[id] = job
  specs[id] = spec
  if was[id] then
    results[id] = false
  end
end

local function remove(id, cause)
  remember_place(id)
  jobs[id] = false
  specs[id] = false
  results[id] = false
end

-- Notes a change of fields other than state.
local function touch(id)
  remember_place(id)
end

local function publish(channel, text)
  messages[#messages + 1] = { CHANNEL .. channel, text }
end

local function write_hash(key, values)
  local set, gone = {}, {}
  for id, value in pairs(values) do
    if value then
      set[#set + 1] = id
      set[#set + 1] = value
    else
      gone[#gone + 1] = id
    end
  end
  call_in_pieces('HSET', key, set, 2)
  call_in_pieces('HDEL', key, gone, 1)
end

local function append(lists, key, ...)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  for i = 1, select('#', ...) do
    list[#list + 1] = (select(i, ...))
  end
end

-- Writes what has changed, and forgets it: a script may load, change and commit again.
-- Returns whether a worker may have something to do earlier than it knows.
local function commit()
  local out, into, states = {}, {}, {}
  local ready, waiting = false, {}
  for _, id in ipairs(changed) do
    local job, before = jobs[id], was[id]
    states[id] = job and cmsgpack.pack(job)
    if job then
      local set, member = SET_OF[job[F_STATE]], member_of(id, job)
      if before and (before[1] ~= set or before[2] ~= member) then
        append(out, before[1], before[2])
      end
      append(into, set, score_of(job), member)
      ready = ready or set == READY_SET
      if set == SCHEDULED_SET or set == RETRYING_SET then
        waiting[member] = true
      end
    elseif before then
      append(out, before[1], before[2])
    end
  end
  for set, members in pairs(out) do
    call_in_pieces('ZREM', set, members, 1)
  end
  for set, members in pairs(into) do
    call_in_pieces('ZADD', set, members, 2)
  end
  write_hash(STATE, states)
  write_hash(SPEC, specs)
  write_hash(RESULT, results)
  write_clocks()
  for _, message in ipairs(messages) do
    redis.call('PUBLISH', message[1], message[2])
  end
  changed, was, specs, results, messages = {}, {}, {}, {}, {}

  if not ready and next(waiting) then
    for _, set in ipairs({ SCHEDULED_SET, RETRYING_SET }) do
      local head = redis.call('ZRANGE', set, 0, 0)[1]
      ready = ready or (head and waiting[head]) or false
    end
  end
  return ready
end

-- The doorbell: at most one token, and never a job.
local function ring()
  if redis.call('LLEN', WAKE) == 0 then
    redis.call('LPUSH', WAKE, '1')
  end
end

local function policy_of(job, field)
  return job[F_POLICY] and job[F_POLICY][field]
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
  publish('leases', cjson.encode({ id = id, fence = string.format('%.0f', job[F_FENCE]), reason = reason }))
end
