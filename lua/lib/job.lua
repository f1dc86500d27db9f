-- @include record
-- @include order
-- @include slots
-- @include unique
-- @include history
-- @include stats
-- Jobs as a script works on them. A script loads the jobs it needs, changes them in memory, and writes all of them
-- with one commit(): so everything is checked before anything changes, and every command is variadic over the batch.
local SET_OF = {
  [SCHEDULED] = SCHEDULED_SET,
  [READY] = READY_SET,
  [HELD] = HELD_SET,
  [RESERVED] = RESERVED_SET,
  [RETRYING] = RETRYING_SET,
  [COMPLETED] = COMPLETED_SET,
  [FAILED] = FAILED_SET,
}

-- Most calls see no job with a concurrency or unique key, and the functions for these are made only when one is met:
-- a script is run from its top for each call, and making a function takes time. So whoever uses `slots` or `unique` has
-- seen an F_UNPACKED, and called this.
local has_keys = false
local function with_keys()
  if not has_keys then
    has_keys = true
    with_slots()
    with_unique()
  end
end

local jobs = {} -- id → job, or false when there is none
local unreadable = {} -- id → bytes that are no job
local changed, changes = {}, 0 -- ids, in the order of their first change
-- Lists of arguments for the commit, made as the changes are: appending to a list is much cheaper than to a table by id.
local into, out = {}, {} -- set → score, member, score, member … to be added; set → members to be removed
local states = {} -- id, record, id, record …
local specs, results, gone, results_gone = {}, {}, {}, {}
local messages = {} -- channel, text, channel, text …

-- Where a job stands: the member it has in the sorted set of its state. Scheduled jobs of one due time stand in the
-- order of their insertion, which a sorted set gives only by member: so their order, in hex, precedes the id. Held ones
-- stand by key, and within it as they would in READY.
local ORDER_DIGITS = 13
local PRIORITY_STEP = 2 ^ 49
local function member_of(id, job)
  local state = job[F_STATE]
  if state == SCHEDULED then
    return string.format('%013x', job[F_ORDER]) .. id
  elseif state == HELD then
    local place = (9 - job[F_PRIORITY]) * PRIORITY_STEP + job[F_ORDER]
    return string.format('%s\0%014x\0%s', policy_of(job, P_CONCURRENCY)[1], place, id)
  end
  return id
end

local HELD_PLACE_BYTES = 16
local function id_of(set, member)
  if set == SCHEDULED_SET then
    return string.sub(member, ORDER_DIGITS + 1)
  elseif set == HELD_SET then
    return string.sub(member, (string.find(member, '\0', 1, true) or 0) + HELD_PLACE_BYTES)
  end
  return member
end

-- As text, because '%d' takes half the time of the '%.17g' by which Redis would write the number.
local function score_of(job)
  local state = job[F_STATE]
  if state == READY then
    return string.format('%d', (9 - job[F_PRIORITY]) * PRIORITY_STEP + job[F_ORDER])
  elseif state == HELD then
    return '0'
  end
  return string.format('%d', job[F_AT])
end

-- How put and hand_over are given a job: id, spec, options.
local JOB = '>Bc0I4c0I4c0'

-- Takes the record of a job.
local function take(id, packed)
  local job = decode(packed)
  jobs[id] = job or false
  if not job then
    unreadable[id] = packed
  end
end

-- Takes jobs by their records; those that have none are fresh, or are not there.
local function take_all(ids, packed)
  local others
  for i = 1, #ids do
    if packed[i] then
      take(ids[i], packed[i])
    else
      others = others or {}
      others[#others + 1] = ids[i]
    end
  end
  local found = others and get_many(SPEC, others)
  for i = 1, others and #others or 0 do
    if found[i] then
      jobs[others[i]] = fresh_of(found[i]) or false
    end
  end
end

-- Reads the jobs of these ids which this script has not read yet. Returns the records of all ids, false for those that
-- have none, unless one of them had been read or stands there twice; they are taken only when asked to.
local function read(ids)
  local missing, n = {}, 0
  for i = 1, #ids do
    local id = ids[i]
    if jobs[id] == nil then
      n = n + 1
      missing[n] = id
      jobs[id] = false
    end
  end
  if n == 0 then
    return nil
  end
  local packed = get_many(STATE, missing)
  if n == #ids then
    return packed
  end
  take_all(missing, packed)
  return nil
end

local function load(ids)
  local packed = read(ids)
  if packed then
    take_all(ids, packed)
  end
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
  if job[F_UNPACKED] then
    with_keys()
    slots.pass(job, job[F_STATE], to, to == RESERVED or cause == 'free')
    unique.pass(id, job, to, cause)
  end
  job[F_STATE] = to
  job[F_AT] = at
  if cause ~= 'extend' and is_watched then
    note(id, job, cause, to)
  end
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
  if job[F_UNPACKED] then
    with_keys()
    slots.pass(job, job[F_STATE], nil, false)
    unique.pass(id, job, nil, cause)
  end
  if is_watched then
    note(id, job, cause, 0)
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
    if old[F_UNPACKED] then
      with_keys()
      slots.pass(old, old[F_STATE], nil, false)
      -- One that has finished keeps its key only where that is to be kept until its time, whatever becomes of the job.
      if old[F_STATE] < COMPLETED then
        unique.free(id, old)
      end
    end
    append(results_gone, id)
  else
    job[F_WAS_SET] = false
    changes = changes + 1
    changed[changes] = id
  end
  jobs[id] = job
  if job[F_UNPACKED] then
    with_keys()
    slots.pass(job, nil, job[F_STATE], false)
    slots.set_limit(job)
    unique.take(id, job)
  end
  append(specs, id)
  append(specs, head_of(job) .. spec)
  counts.put = counts.put + 1
  if is_watched then
    note(id, job, 'put', job[F_STATE])
  end
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

-- A completed job whose retention has ended is gone, whether sweep has come by or not.
local function is_over(job)
  return job[F_STATE] == COMPLETED and job[F_AT] <= NOW
end

-- Whether the lease of a RESERVED job still runs. In mode recoverable it runs until Requeue ends it.
local function lease_runs(job)
  return job[F_AT] > NOW or settings.mode == 'recoverable'
end

-- Tells the brokers that a job's lease is over, for the one that keeps it for a stream, or that the job is gone, for
-- those who await it.
-- reason: DELETED, CANCELLED, EXPIRED, RUN_TIMEOUT, or RELEASED (by a call to another broker).
local function announce_end(id, job, reason)
  local fence = job[F_STATE] == RESERVED and job[F_FENCE] or 0
  publish(LEASES, cjson.encode({ id = id, fence = string.format('%d', fence), reason = reason }))
end
