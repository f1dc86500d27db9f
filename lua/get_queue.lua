#!lua flags=allow-oom
-- @include due
-- @include rates
-- Shows a queue: what is due has moved.
--
-- KEYS     all parts of the queue
-- ARGV     5 '1' for the counters of each day, else ''
-- Returns  1 how many jobs are in each state, in the order of their numbers, 2 age of the oldest READY job (ms, -1: none),
--          3 today (days since 1970), 4 the queue's settings (JSON, '': none), 5 how many records were set aside, 6 rates:
--          (ms between two moments, then by how much put, completed and failed have grown), empty when unknown,
--          7 the counters: name or name:day, number, and so on; or the name and its sum over all days
-- Publishes  what move_due publishes; rings as move_due makes jobs READY
-- Twice    yes
if move_due() then
  ring()
end
local counts_by_state = {}
for state = SCHEDULED, FAILED do
  counts_by_state[state] = call('ZCARD', SET_OF[state])
end

-- The first of each priority is the oldest of it.
local oldest = -1
for priority = 0, 9 do
  local from, to = (9 - priority) * PRIORITY_STEP, (10 - priority) * PRIORITY_STEP
  local range = { string.format('%d', from), string.format('(%d', to) }
  local id = call('ZRANGE', READY_SET, range[1], range[2], 'BYSCORE', 'LIMIT', 0, 1)[1]
  if id then
    load({ id })
    local job = jobs[id]
    oldest = math.max(oldest, job and NOW - time_of(job[F_ORDER]) or 0)
  end
end

-- Since the first sample of the last minute, else the newest, after which nothing had happened for a while. At midnight
-- the counters begin anew.
local RATE_MS = 60000
local today = math.floor(NOW / MS_PER_DAY)
local rates = {}
local samples = call('HGET', META, 'samples')
samples = samples and cmsgpack.unpack(samples) or {}
local since
for _, sample in ipairs(samples) do
  if not since or since[1] < NOW - RATE_MS then
    since = sample
  end
end
if since and since[1] < NOW then
  rates[1] = math.min(NOW - since[1], RATE_MS)
  local is_of_today = math.floor(since[1] / MS_PER_DAY) == today
  for i, counter in ipairs(counters_of(today)) do
    rates[i + 1] = counter - (is_of_today and since[i + 1] or 0)
  end
end

local counters = call('HGETALL', STATS)
if ARGV[FIRST] == '' then
  local sums = {}
  for i = 1, #counters, 2 do
    local name = string.match(counters[i], '^[^:]+')
    sums[name] = (sums[name] or 0) + tonumber(counters[i + 1])
  end
  counters = {}
  for name, sum in pairs(sums) do
    append(counters, name)
    append(counters, string.format('%d', sum))
  end
end

return {
  counts_by_state,
  oldest,
  today,
  meta[META_SETTINGS] or '',
  call('HLEN', ASIDE),
  rates,
  counters,
}
