#!lua
-- @include due
-- Puts jobs, each as its on_conflict says when its id is taken.
--
-- KEYS     all parts of the queue
-- ARGV     5 nonce of this put (an integer; job i gets nonce + i)
--          then for each job: id, spec, options: '' or JSON {priority, delay | run_at (ms), conflict: "keep" | "replace",
--          policy: as F_POLICY}
-- Returns  2 bytes for each job: 2 created, 1 kept, 0 conflict; and the state of the job with that id
-- Publishes  nothing; rings when a job is READY, or due before all others
-- Twice    a job made by the same put (nonce) is answered as created, and not made again
local STRIDE = 3
local PLAIN = {}
local nonce = tonumber(ARGV[FIRST])
local ids = {}
for i = FIRST + 1, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[i]
end
load(ids)

-- Decides on an id that is taken: may it be put anew?
local function conflict_of(job, mode)
  if is_over(job) then
    return 1
  end
  if mode == 'keep' then
    return 0
  end
  if job[F_STATE] == COMPLETED or job[F_STATE] == FAILED then
    return 1
  end
  return mode == 'replace' and job[F_STATE] ~= RESERVED and 1 or -1
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

local answer = {}
for n, id in ipairs(ids) do
  local at = FIRST + 1 + (n - 1) * STRIDE
  local options = ARGV[at + 2] ~= '' and cjson.decode(ARGV[at + 2]) or PLAIN
  local existing = jobs[id]
  local verdict = 1
  if existing and existing[F_NONCE] ~= nonce + n then
    verdict = conflict_of(existing, options.conflict)
  end
  if verdict == 1 and not (existing and existing[F_NONCE] == nonce + n) then
    local due = options.run_at or (options.delay and NOW + options.delay) or 0
    local state = due > NOW and SCHEDULED or READY
    create(id, {
      state,
      options.priority or 0,
      0,
      0,
      tick('order', NOW),
      state == SCHEDULED and due or 0,
      0,
      NOW,
      nonce + n,
      0,
      0,
      0,
      0,
      '',
      options.policy and cmsgpack.pack(options.policy) or '',
    }, ARGV[at + 1])
  end
  answer[n] = string.char(verdict + 1, jobs[id][F_STATE])
end

if commit() or woken then
  ring()
end
return table.concat(answer)
