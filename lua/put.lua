#!lua
-- @include due
-- @include make
-- Puts jobs, each as its on_conflict says when its id or its unique key is taken.
--
-- KEYS     all parts of the queue
-- ARGV     5 nonce of this put (an integer; job i gets nonce + i), 6 the jobs, packed as lib/job.lua's JOB says: id, spec, options: ''
--          or JSON {priority, delay | run_at (ms), conflict: "keep" | "replace", policy: as F_POLICY}
-- Returns  2 bytes for each job: 2 created, 1 kept, 0 conflict, 4 kept for its unique key, 3 conflict of unique keys; and
--          the state of the job with that id or key. Where unique keys were taken: an array of these bytes and, for each
--          such job in their order, the id of the job that keeps its key
-- Publishes  nothing, to those who watch what it put; rings when a job is READY, or due before all others
-- Twice    a job made by the same put (nonce) is answered as created, and not made again
local PLAIN = {}
local CONFLICT, KEPT, CREATED, UNIQUE_CONFLICT, UNIQUE_KEPT = 0, 1, 2, 3, 4
local nonce = tonumber(ARGV[FIRST])
local ids, bytes, options_of = {}, {}, {}
local packed_jobs, at, are_plain = ARGV[FIRST + 1], 1, not is_watched
for n = 1, #packed_jobs do
  if at > #packed_jobs then
    break
  end
  ids[n], bytes[n], options_of[n], at = struct.unpack(JOB, packed_jobs, at)
  are_plain = are_plain and options_of[n] == ''
end

local records = read(ids)
if records then
  take_all(ids, records)
  for n = 1, #ids do
    are_plain = are_plain and not records[n] and not jobs[ids[n]]
  end
end
if records and are_plain and #ids >= PLAIN_WORTH then
  local ready = {}
  for n = 1, #ids do
    local id, order = ids[n], tick('order', NOW)
    ready[2 * n - 1], ready[2 * n] = string.format('%d', 9 * PRIORITY_STEP + order), id
    specs[2 * n - 1], specs[2 * n] = id, struct.pack(HEAD, 0, order, NOW, nonce + n) .. bytes[n]
  end
  into[READY_SET] = ready
  counts.put = #ids
  commit()
  ring()
  return string.rep(string.char(CREATED, READY), #ids)
end

-- Decides on an id that is taken: may it be put anew?
local function conflict_of(job, mode)
  if is_over(job) then
    return CREATED
  end
  if mode == 'keep' then
    return KEPT
  end
  if job[F_STATE] == COMPLETED or job[F_STATE] == FAILED then
    return CREATED
  end
  return mode == 'replace' and job[F_STATE] ~= RESERVED and CREATED or CONFLICT
end

-- The id of the job that keeps the unique key which these options name from this job; the job that it takes the place
-- of does not, unless it has finished and keeps its key until its time.
local function keeper_of(id, policy)
  with_keys()
  local keeper = unique.keeper({ [F_UNPACKED] = policy })
  local own = jobs[id]
  if keeper == id and own and own[F_STATE] < COMPLETED then
    return nil
  end
  return keeper
end

-- A lease that has run out no longer stands in the way of a REPLACE.
local stale = false
for _, id in ipairs(ids) do
  local job = jobs[id]
  stale = stale or (job and job[F_STATE] == RESERVED and job[F_AT] <= NOW)
end
local woken = false
if stale then
  woken = move_due()
end

local answer, keepers = {}, nil
for n, id in ipairs(ids) do
  local options = options_of[n] ~= '' and cjson.decode(options_of[n]) or PLAIN
  local existing = jobs[id]
  local verdict, state = CREATED, nil
  if not existing or existing[F_NONCE] ~= nonce + n then
    if existing then
      verdict = conflict_of(existing, options.conflict)
    end
    local keeper = verdict == CREATED and options.policy and keeper_of(id, options.policy)
    if keeper then
      verdict = options.conflict == 'keep' and UNIQUE_KEPT or UNIQUE_CONFLICT
      load({ keeper })
      state = jobs[keeper] and jobs[keeper][F_STATE] or COMPLETED
      keepers = keepers or { '' }
      append(keepers, keeper)
    elseif verdict == CREATED then
      make(id, bytes[n], options, nonce + n)
    end
  end
  answer[n] = string.char(verdict, state or jobs[id][F_STATE])
end

if commit() or woken then
  ring()
end
if keepers then
  keepers[1] = table.concat(answer)
  return keepers
end
return table.concat(answer)
