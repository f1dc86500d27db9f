-- What every script is given, in this order (src/store/keys.ts and src/store/scripts.ts say the same):
--   KEYS   all parts of one queue, whether the script needs them or not
--   ARGV   1 time in ms, or '' for Redis's own   2 queue   3 prefix of its channels   4 defaults, JSON
--          5… the script's own arguments
local SPEC, STATE, RESULT = KEYS[1], KEYS[2], KEYS[3]
local READY_SET, SCHEDULED_SET, RETRYING_SET, RESERVED_SET = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local COMPLETED_SET, FAILED_SET = KEYS[8], KEYS[9]
local WAKE, META = KEYS[10], KEYS[11]

local ARGV = ARGV
local QUEUE, CHANNEL = ARGV[2], ARGV[3]
local FIRST = 5

local call = redis.call

local function read_clock()
  if ARGV[1] ~= '' then
    return tonumber(ARGV[1])
  end
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- One script sees one moment.
local NOW = read_clock()

-- {retention, lease: ms; retry: a policy's retry part; dead_letter_max: jobs; dead_letter_age: ms}.
-- Decoded only by those that need it: a put, or a reserve of plain jobs, does not.
local decoded_defaults
local function defaults()
  if not decoded_defaults then
    decoded_defaults = cjson.decode(ARGV[4])
  end
  return decoded_defaults
end

-- Lua's unpack, and with it one call, takes fewer than 8,000 values: long lists go in pieces.
-- `stride` values belong together and stay in one call.
local PIECE = 4000
local function call_in_pieces(command, key, values, stride)
  local piece = PIECE - PIECE % stride
  for from = 1, #values, piece do
    call(command, key, unpack(values, from, math.min(from + piece - 1, #values)))
  end
end

-- HMGET of any length, in the order of `fields`; what is not there is false.
local function get_many(key, fields)
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
