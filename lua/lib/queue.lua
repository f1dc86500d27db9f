-- What every script is given, in this order (src/store/keys.ts and src/store/scripts.ts say the same):
--   KEYS   all parts of one queue, whether the script needs them or not
--   ARGV   1 time in ms, or '' for Redis's own   2 queue   3 prefix of its channels   4 defaults, JSON
--          5… the script's own arguments
local SPEC, STATE, RESULT = KEYS[1], KEYS[2], KEYS[3]
local READY_SET, HELD_SET, SCHEDULED_SET, RETRYING_SET = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local RESERVED_SET, COMPLETED_SET, FAILED_SET = KEYS[8], KEYS[9], KEYS[10]
local SLOTS, UNIQUE, UNIQUE_EXPIRY = KEYS[11], KEYS[12], KEYS[13]
local SCHEDULES, TICKS = KEYS[14], KEYS[15]
local WAKE, META, STATS, HISTORY, ASIDE = KEYS[16], KEYS[17], KEYS[18], KEYS[19], KEYS[20]

local ARGV = ARGV
local QUEUE, CHANNEL = ARGV[2], ARGV[3]
local FIRST = 5

local call = redis.call

-- One script sees one moment.
local NOW = tonumber(ARGV[1])
if not NOW then
  local time = call('TIME')
  NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- What most calls need of META: the clocks' last values (lib/order.lua), the queue's own settings (JSON, written by
-- update_queue), until when somebody watches (lib/history.lua), and the first of TICKS (lib/schedule.lua).
local meta = call('HMGET', META, 'order', 'due_order', 'settings', 'watched_until', 'next_tick')
local META_ORDER, META_DUE_ORDER, META_SETTINGS, META_WATCHED, META_NEXT_TICK = 1, 2, 3, 4, 5

-- What the queue sets for itself: as defaults(), and {paused: true; mode: "recoverable" | "simple"}. Most set nothing.
local settings = meta[META_SETTINGS] and cjson.decode(meta[META_SETTINGS]) or {}
local is_watched = tonumber(meta[META_WATCHED] or 0) > NOW

-- The broker's {retention, lease: ms; retry: a policy's retry part; dead_letter_max: jobs; dead_letter_age: ms;
-- history_max: events}. Decoded only by those that need it: a put, or a reserve of plain jobs, does not.
local decoded_defaults
local function defaults()
  if not decoded_defaults then
    decoded_defaults = cjson.decode(ARGV[4])
  end
  return decoded_defaults
end

-- A setting of the queue's, else of the broker's.
local function setting(name)
  return settings[name] or defaults()[name]
end

local function append(list, value)
  list[#list + 1] = value
end

local call_in_pieces, get_many
do
  -- Lua's unpack, and with it one call, takes fewer than 8,000 values: long lists go in pieces.
  -- `stride` values belong together and stay in one call.
  local PIECE = 4000
  function call_in_pieces(command, key, values, stride)
    local piece = PIECE - PIECE % stride
    for from = 1, #values, piece do
      call(command, key, unpack(values, from, math.min(from + piece - 1, #values)))
    end
  end

  -- HMGET of any length, in the order of `fields`; what is not there is false.
  function get_many(key, fields)
    if #fields <= PIECE then
      return call('HMGET', key, unpack(fields))
    end
    local all = {}
    for from = 1, #fields, PIECE do
      for _, value in ipairs(call('HMGET', key, unpack(fields, from, math.min(from + PIECE - 1, #fields)))) do
        all[#all + 1] = value
      end
    end
    return all
  end
end
