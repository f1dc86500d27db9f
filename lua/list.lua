#!lua flags=allow-oom
-- @include view
-- Shows the jobs of one state, page by page, in the order in which they stand.
--
-- KEYS     all parts of the queue
-- ARGV     5 state, 6 at most so many jobs, 7 and 8 score and member after which the page begins ('' and '': at the first)
-- Returns  1 and 2 score and member of the last job shown, '' and '' when there are no more; then each job, as view_of says
-- Publishes  what move_due publishes; rings as move_due makes jobs READY
-- Twice    yes
local state, most = tonumber(ARGV[FIRST]), tonumber(ARGV[FIRST + 1])
local after_score, after = ARGV[FIRST + 2], ARGV[FIRST + 3]
local set = SET_OF[state]
-- As reserve: an answer fits into 4 MiB, but always one job.
local MAX_BYTES = 3.5 * 1024 * 1024
local JOB_BYTES = 280
local V_CONCURRENCY, V_UNIQUE = 12, 14

if move_due() then
  ring()
end

-- By their bytes, as Redis orders members of one score; Lua's own comparison goes by the server's locale.
local function stands_behind(member)
  for i = 1, math.min(#member, #after) do
    local a, b = string.byte(member, i), string.byte(after, i)
    if a ~= b then
      return a > b
    end
  end
  return #member > #after
end

-- How many members stand up to and including `after`, which itself may have left: those of its score stand in the order
-- of their bytes, so they are searched by halves.
local function rank_after()
  if after_score == '' then
    return 0
  end
  local low, high = call('ZCOUNT', set, '-inf', '(' .. after_score), call('ZCOUNT', set, '-inf', after_score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if stands_behind(call('ZRANGE', set, middle, middle)[1]) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local from = rank_after()
local members = call('ZRANGE', set, from, from + most - 1, 'WITHSCORES')
local answer, bytes = { '', '' }, 0
local last = 0
for i = 1, #members, 2 do
  local member = members[i]
  local id = load_members(set, state, { member })[1]
  if id then
    local spec, result = call('HGET', SPEC, id) or '', call('HGET', RESULT, id)
    local view = view_of(id, jobs[id], spec, result)
    -- What a job has beside its spec: queue, id, times and counts, worker and keys.
    bytes = bytes + #spec + #id + #(result or '') + JOB_BYTES + #jobs[id][F_WORKER] + #view[V_CONCURRENCY] + #view[V_UNIQUE]
    if bytes > MAX_BYTES and #answer > 2 then
      break
    end
    if not is_over(jobs[id]) then
      append(answer, view)
    end
  end
  last = i
end
if last > 0 and (#members == 2 * most or last < #members - 1) then
  answer[1], answer[2] = members[last + 1], members[last]
end
return answer
