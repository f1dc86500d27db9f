#!lua
-- @include due
-- Lets finished jobs run again, with no failures counted: those named, or FAILED ones from the oldest on.
--
-- KEYS     all parts of the queue
-- ARGV     5 '' for the ids that follow; else for the FAILED jobs that failed until this time (ms): 6 how many of the
--          oldest to pass over, 7 at most so many
-- Returns  for ids: for each 1 byte: 0 no such job, its state when it had not finished, 254 when its unique key is taken, 255
--          when it is READY; then for each such key the id of its keeper, and its state. Else: how many are READY, how
--          many could not be
-- Publishes  what move_due publishes; rings when a job became READY
-- Twice    a job that is READY already has not finished
local NOT_FOUND, TAKEN, RETRIED = 0, 254, 255
local woken = move_due()
local ids = {}
local all_until = ARGV[FIRST]
if all_until == '' then
  for i = FIRST + 1, #ARGV do
    ids[#ids + 1] = ARGV[i]
  end
  load(ids)
else
  local from, most = ARGV[FIRST + 1], ARGV[FIRST + 2]
  local members = call('ZRANGE', FAILED_SET, '-inf', all_until, 'BYSCORE', 'LIMIT', from, most)
  ids = load_members(FAILED_SET, FAILED, members)
end

local keepers = { '' }
local function retry(id)
  local job = jobs[id]
  if not job or is_over(job) then
    return NOT_FOUND
  elseif job[F_STATE] < COMPLETED then
    return job[F_STATE]
  end
  local wish = policy_of(job, P_UNIQUE)
  if wish and (wish[2] ~= UNTIL_START or job[F_ATTEMPT] == 0) then
    with_keys()
    local keeper = unique.keeper(job)
    if keeper and keeper ~= id then
      load({ keeper })
      append(keepers, keeper)
      append(keepers, jobs[keeper] and jobs[keeper][F_STATE] or COMPLETED)
      return TAKEN
    end
    unique.take(id, job)
  end
  job[F_FAILURES] = 0
  job[F_REASON] = 0
  job[F_FINISHED_AT] = 0
  -- A job that nobody came for in time waits anew.
  if job[F_ATTEMPT] == 0 then
    remember_place(id, job)
    job[F_ORDER] = tick('order', NOW)
  end
  keep_result(id, '')
  move(id, READY, 0, 'retry')
  return RETRIED
end

local answer, retried = {}, 0
for n, id in ipairs(ids) do
  local result = retry(id)
  retried = retried + (result == RETRIED and 1 or 0)
  answer[n] = string.char(result)
end
if commit() or woken then
  ring()
end
if all_until ~= '' then
  return { retried, #ids - retried }
end
keepers[1] = table.concat(answer)
return keepers
