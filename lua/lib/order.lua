-- @include queue
-- The queue's two clocks. Both count 256ths of a millisecond since 2026-01-01, and neither ever repeats a value or
-- goes back, whatever Redis's clock does: last = max(last + 1, time × 256).
--   order      for what happens now: a job put without delay, and every reservation (its fence)
--   due_order  for jobs that were scheduled: they are promoted in the order of their due times, so this clock, fed
--              with due times instead of now, puts them where they would stand had they been put when they were due.
-- 2^49 of them last until 2095, which is what leaves room for the priority in a ready job's score.
local tick, write_clocks, order_at, time_of
do
  local EPOCH = 1767225600000
  local TICKS_PER_MS = 256

  local INDEX_OF_CLOCK = { order = META_ORDER, due_order = META_DUE_ORDER }

  local clocks, moved = {}, {}
  function tick(clock, at)
    if not clocks[clock] then
      clocks[clock] = tonumber(meta[INDEX_OF_CLOCK[clock]] or 0)
    end
    clocks[clock] = math.max(clocks[clock] + 1, (at - EPOCH) * TICKS_PER_MS)
    moved[clock] = true
    return clocks[clock]
  end

  function write_clocks()
    for clock in pairs(moved) do
      call('HSET', META, clock, clocks[clock])
    end
    moved = {}
  end

  -- Where a job stands that is handed out before its time: its place among the others of its time, but no clock may run
  -- ahead for it.
  function order_at(at)
    return (at - EPOCH) * TICKS_PER_MS
  end

  -- Since when a job of this order could run, in ms: when it was put, or when it was due.
  function time_of(order)
    return math.floor(order / TICKS_PER_MS) + EPOCH
  end
end
