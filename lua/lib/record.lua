-- @include queue
-- A job as it is stored, and its only codec.
--
-- The state of a job is packed with Lua's struct, in the order of the fields below. It took 0.46 µs to pack and 0.32 µs
-- to unpack where MessagePack took 1.32 and 0.79. Most jobs wait and have never been reserved: they end with F_NONCE,
-- 15 bytes and a worker's name sooner.
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
-- COMPLETED, FAILED: since when. RESERVED: when it would have been due, where it was handed out ahead of its time. Else 0.
local F_FINISHED_AT = 13
-- The worker's id; '' before the first reservation.
local F_WORKER = 14
-- What the job asked for that differs from the defaults: MessagePack of an array with the fields P_…, or ''.
local F_POLICY = 15
-- In memory only: where a changed job stood before, a set (false: nowhere) and its member; F_POLICY unpacked.
local F_WAS_SET, F_WAS_MEMBER, F_UNPACKED = 16, 17, 18
-- It has a slot of its concurrency key (lib/slots.lua), or nil.
local F_SLOT = 19
-- RESERVED: the number of the stream that has taken the lease over from the one that got it (extend.lua), or nil.
local F_HOLDER = 20
-- RESERVED: what the worker reported of its progress, packed as PROGRESS says, the note behind it; or nil.
local F_PROGRESS = 21
local PROGRESS = '>BI6' -- percent, when (ms)

local P_LEASE, P_RUN_TIMEOUT, P_RETENTION, P_EXPIRES_IN, P_RETRY = 1, 2, 3, 4, 5
-- {key, limit}; {key, until: 1 start, 2 success, 3 expiry, expires in ms or false}
local P_CONCURRENCY, P_UNIQUE = 6, 7
-- Each may be false: not said. Curve: 1 exponential, 2 exq.
local R_MAX_ATTEMPTS, R_INITIAL, R_MAX, R_MULTIPLIER, R_JITTER, R_CURVE = 1, 2, 3, 4, 5, 6

-- As in src/model/states.ts and in the proto.
local SCHEDULED, READY, HELD, RESERVED, RETRYING, COMPLETED, FAILED = 1, 2, 3, 4, 5, 6, 7

-- As in src/model/states.ts.
local REASON_RELEASED, REASON_LEASE_EXPIRED, REASON_JOB_EXPIRED, REASON_CANCELLED = 1, 2, 3, 4

-- In SPEC, what was put stands behind its head: priority, order, put at, nonce. A job that is READY for the first time and
-- has no policy is fresh: it has no record, because its head says everything. That saves 124 bytes for each that waits.
local HEAD = '>BI7I6I5'
local HEAD_BYTES = 19

-- Nearly all jobs are plain: fresh ones that are reserved once and completed, while nobody watches. In batches, put,
-- reserve, hand_over and release change them as bytes, without making a table of each, with the same outcome as move()
-- and its like; a test compares the two. Of 100 jobs it takes 6 instead of 9 µs to put one, 8 instead of 11 to reserve,
-- and 5 instead of 10 to complete it.
-- Where the fields of the record of a reserved plain job begin; its worker's id follows its length.
local AT_PRIORITY, AT_ORDER, AT_AT, AT_FENCE = 2, 9, 16, 22
local AT_RELEASED, AT_WORKER = 46, 54
local FRESH_BYTES, USED_BYTES = 39, 54
-- The first bytes of those that are reserved and completed: the state, with IS_USED.
local RESERVED_BYTE, COMPLETED_BYTE = 68, 70
local PLAIN_WORTH = 5 -- With fewer jobs, it costs as much to ask as it saves.

local decode, encode, fresh_of, head_of
do
  local FRESH = '>BBI4I2I7I6I7I6I5'
  local USED = '>I6BBI6Bc0'
  local FRESH_AND_USED = FRESH .. USED
  -- Added to the state, in the first byte, where the job has a slot, where the fields of USED follow, and where after
  -- these stand the lease's holder and the progress, with its length before it.
  local HAS_PROGRESS, HAS_SLOT, IS_USED, IS_TAKEN_OVER = 16, 32, 64, 128
  local HOLDER = '>I6'
  local HOLDER_BYTES = 6
  local LENGTH = '>I2'
  local LENGTH_BYTES = 2
  local PROGRESS_BYTES = 7

  -- nil for what is no job: too short, in no state, with a policy that cannot be unpacked, or held without a key.
  function decode(packed)
    local length, first = #packed, string.byte(packed) or 0
    local flags = first - first % HAS_PROGRESS
    local used = flags % IS_TAKEN_OVER >= IS_USED
    if first == flags or first - flags > FAILED or length < FRESH_BYTES then
      return nil
    end
    -- The nils at the end keep room for the fields in memory: a table that grows costs as much as unpacking.
    local job
    if used then
      if length < USED_BYTES or length < USED_BYTES + string.byte(packed, USED_BYTES) then
        return nil
      end
      local state, priority, attempt, failures, order, at, fence, put_at, nonce, reserved_at, released, reason, finished_at, worker, rest =
        struct.unpack(FRESH_AND_USED, packed)
      local holder, progress
      if flags >= IS_TAKEN_OVER then
        if length < rest - 1 + HOLDER_BYTES then
          return nil
        end
        holder, rest = struct.unpack(HOLDER, packed, rest)
      end
      if flags % HAS_SLOT == HAS_PROGRESS then
        local bytes = length >= rest - 1 + LENGTH_BYTES and struct.unpack(LENGTH, packed, rest) or 0
        if bytes < PROGRESS_BYTES or length < rest - 1 + LENGTH_BYTES + bytes then
          return nil
        end
        rest = rest + LENGTH_BYTES
        progress, rest = string.sub(packed, rest, rest + bytes - 1), rest + bytes
      end
      job = {
        state, priority, attempt, failures, order, at, fence, put_at, nonce,
        reserved_at, released, reason, finished_at, worker, string.sub(packed, rest), nil, nil, nil, nil, holder, progress,
      }
    else
      local state, priority, attempt, failures, order, at, fence, put_at, nonce, rest = struct.unpack(FRESH, packed)
      job = {
        state, priority, attempt, failures, order, at, fence, put_at, nonce,
        0, 0, 0, 0, '', string.sub(packed, rest), nil, nil, nil, nil, nil, nil,
      }
    end
    if flags > 0 then
      job[F_STATE] = first - flags
      job[F_SLOT] = flags % IS_USED >= HAS_SLOT or nil
    end
    if job[F_POLICY] ~= '' then
      local ok, unpacked = pcall(cmsgpack.unpack, job[F_POLICY])
      if not ok or type(unpacked) ~= 'table' then
        return nil
      end
      job[F_UNPACKED] = unpacked
    end
    if job[F_STATE] == HELD and not (job[F_UNPACKED] and job[F_UNPACKED][P_CONCURRENCY]) then
      return nil
    end
    return job
  end

  function encode(job)
    local first = job[F_STATE] + (job[F_SLOT] and HAS_SLOT or 0)
    if job[F_FENCE] == 0 and job[F_FINISHED_AT] == 0 then
      return struct.pack(FRESH, first, unpack(job, 2, F_NONCE)) .. job[F_POLICY]
    end
    local holder, progress = nil, nil
    if job[F_STATE] == RESERVED then
      holder, progress = job[F_HOLDER], job[F_PROGRESS]
    end
    first = first + IS_USED + (holder and IS_TAKEN_OVER or 0) + (progress and HAS_PROGRESS or 0)
    return struct.pack(FRESH, first, unpack(job, 2, F_NONCE))
      .. struct.pack(USED, job[F_RESERVED_AT], job[F_RELEASED], job[F_REASON], job[F_FINISHED_AT], #job[F_WORKER], job[F_WORKER])
      .. (holder and struct.pack(HOLDER, holder) or '')
      .. (progress and struct.pack(LENGTH, #progress) .. progress or '')
      .. job[F_POLICY]
  end
end

-- A fresh job by its spec; nil for what is none.
function fresh_of(spec)
  if #spec < HEAD_BYTES then
    return nil
  end
  local priority, order, put_at, nonce = struct.unpack(HEAD, spec)
  return {
    READY, priority, 0, 0, order, 0, 0, put_at, nonce,
    0, 0, 0, 0, '', '', nil, nil, nil, nil, nil, nil,
  }
end

function head_of(job)
  return struct.pack(HEAD, job[F_PRIORITY], job[F_ORDER], job[F_PUT_AT], job[F_NONCE])
end

-- What the job itself asked for; nil when it did not.
local function policy_of(job, field)
  local unpacked = job[F_UNPACKED]
  return unpacked and unpacked[field] or nil
end

-- percent, when (ms), note; percent -1: nothing was reported in this attempt.
local function progress_of(job)
  local packed = job[F_STATE] == RESERVED and job[F_PROGRESS]
  if not packed then
    return -1, 0, ''
  end
  local percent, at, rest = struct.unpack(PROGRESS, packed)
  return percent, at, string.sub(packed, rest)
end
