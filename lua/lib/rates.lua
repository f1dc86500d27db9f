-- @include stats
-- How fast the counters grow: sweep takes samples of them, {time, put, completed, failed}, and get_queue compares.

-- Those that have rates, as they stand for this day.
local function counters_of(day)
  local counters = call('HMGET', STATS, 'put:' .. day, 'completed:' .. day, 'failed:' .. day)
  for i = 1, #counters do
    counters[i] = tonumber(counters[i] or 0)
  end
  return counters
end

local function are_same(a, b)
  return a[2] == b[2] and a[3] == b[3] and a[4] == b[4]
end
