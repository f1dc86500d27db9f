#!lua flags=allow-oom
-- @include due
-- Changes a queue's settings. Allowed when memory is full: so a queue can be paused.
--
-- KEYS     all parts of the queue
-- ARGV     5 JSON of the settings to change: as settings has them, false to unset one; of `retry` the fields that change
--          by their number as text, false to unset
-- Returns  1 the settings before, 2 the settings now: JSON, '' for none
-- Publishes  nothing; rings when the queue may hand out jobs again
-- Twice    the second time nothing changes
local before = meta[META_SETTINGS] or ''
local own = settings
for name, value in pairs(cjson.decode(ARGV[FIRST])) do
  if name == 'retry' then
    local retry, is_empty = own.retry or { false, false, false, false, false, false }, true
    for field, part in pairs(value) do
      retry[tonumber(field)] = part
    end
    for _, part in ipairs(retry) do
      is_empty = is_empty and part == false
    end
    own.retry = not is_empty and retry or nil
  else
    own[name] = value or nil
  end
end
local now = next(own) and cjson.encode(own) or ''
if now ~= before then
  if now == '' then
    call('HDEL', META, 'settings')
  else
    call('HSET', META, 'settings', now)
  end
  if not own.paused and call('ZCARD', READY_SET) > 0 then
    ring()
  end
end
return { before, now }
