#!lua
-- @include due
-- Puts fresh jobs and hands them at once to workers who wait, in one step: what put and then reserve would do, where
-- nothing else is READY or due, so that nobody is overtaken. The jobs for which there is no worker become READY.
--
-- KEYS     all parts of the queue
-- ARGV     5 name of the caller, 6 number of this call, both as in reserve; 7 nonce, 8 the jobs, as in put, all without options
--          then for each claim: how many jobs, lease in ms (0: the queue's), worker id; they serve reserve as they are
-- Returns  0 when the queue or the jobs are not so: nothing has changed; 1 when this call has run before: reserve, called
--          with the same caller and number, gives its jobs again; else an array:
--          1 whether jobs are left READY (1) or not (0), 2 how long until the next job is due or the next lease ends (ms),
--          3 now (ms), 4 the fence of the first job that was handed out, those of the others follow it one by one,
--          then for each claim when its leases end (ms)
-- Publishes  nothing; rings when jobs are left READY
-- Twice    see Returns
local NOTHING, RAN_BEFORE = 0, 1
local STRIDE = 3
local LAST_CALL = 'reserve:' .. ARGV[FIRST]
local number, nonce, packed_jobs = ARGV[FIRST + 1], tonumber(ARGV[FIRST + 2]), ARGV[FIRST + 3]

local last = call('HGET', META, LAST_CALL)
if last and cmsgpack.unpack(last)[1] == number then
  return RAN_BEFORE
end

local ids, bytes, options, at = {}, {}, nil, 1
for n = 1, #packed_jobs do
  if at > #packed_jobs then
    break
  end
  ids[n], bytes[n], options, at = struct.unpack(JOB, packed_jobs, at)
end

local records = read(ids)
if not records then
  return NOTHING
end
take_all(ids, records)
for n = 1, #ids do
  if records[n] or jobs[ids[n]] then
    return NOTHING
  end
end
if is_watched or settings.paused or settings.mode or call('ZCARD', READY_SET) > 0 or next_due() == 0 then
  return NOTHING
end

local orders = {}
for n = 1, #ids do
  orders[n] = tick('order', NOW)
  specs[2 * n - 1], specs[2 * n] = ids[n], struct.pack(HEAD, 0, orders[n], NOW, nonce + n) .. bytes[n]
end
local answer, claims, reserved = { 0, 0, NOW, 0 }, {}, {}
local handed, first_fence = 0, nil
for i = FIRST + 4, #ARGV, STRIDE do
  local lease, worker = tonumber(ARGV[i + 1]), ARGV[i + 2]
  local ends = NOW + (lease > 0 and lease or setting('lease'))
  local score, claim = string.format('%d', ends), struct.pack('>I2', (i - FIRST - 4) / STRIDE + 1)
  local used = struct.pack('>I6BBI6Bc0', NOW, 0, 0, 0, #worker, worker)
  for n = handed + 1, math.min(handed + tonumber(ARGV[i]), #ids) do
    local fence = tick('order', NOW)
    first_fence = first_fence or fence
    claims[n] = claim
    reserved[2 * n - 1], reserved[2 * n] = score, ids[n]
    states[2 * n - 1] = ids[n]
    states[2 * n] = struct.pack('>BBI4I2I7I6I7I6I5', RESERVED_BYTE, 0, 1, 0, orders[n], ends, fence, NOW, nonce + n) .. used
    handed = n
    note_head(RESERVED_SET, ends)
  end
  answer[#answer + 1] = ends
end
into[RESERVED_SET] = reserved
if handed < #ids then
  local ready = {}
  for n = handed + 1, #ids do
    append(ready, string.format('%d', 9 * PRIORITY_STEP + orders[n]))
    append(ready, ids[n])
  end
  into[READY_SET] = ready
end
counts.put = #ids
if commit() then
  ring()
end
local record = { number, NOW, first_fence, table.concat(claims), table.concat(ids, '\n', 1, handed) }
call('HSET', META, LAST_CALL, cmsgpack.pack(record))
answer[1], answer[2], answer[4] = handed < #ids and 1 or 0, next_due(), first_fence
return answer
