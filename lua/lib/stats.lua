-- @include queue
-- Counters of what happened, for each day: fields `<name>:<days since 1970>`. sweep adds those that are too old to a
-- field of the name alone, so that the total is the sum of all fields, and each event costs one increment.
local MS_PER_DAY = 86400000

local counts = { put = 0, completed = 0, failed = 0, pulled = 0 }
local function write_stats()
  for name, number in pairs(counts) do
    if number > 0 then
      call('HINCRBY', STATS, string.format('%s:%d', name, math.floor(NOW / MS_PER_DAY)), number)
      counts[name] = 0
    end
  end
end
