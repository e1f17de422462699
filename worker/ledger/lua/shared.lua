-- Prepended to every script. Keys, time, and the one place where an event changes its state.
-- The key schema is prose at the top of worker/ledger/keys.py. Every script is safe to repeat.

local function key(tenant, ...)
  return 'er:' .. tenant .. ':' .. table.concat({...}, ':')
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function int(number)
  return string.format('%d', number)
end

-- The index that events of a state are in; synced, duplicate ... are in none but `events`.
local INDEX = { received = 'due:process', ready = 'due:sync', held = 'held', dead = 'dead' }
local FINAL = { synced = true, duplicate = true, superseded = true, ignored = true, discarded = true }
local HISTORY_MAX, HISTORY_HEAD, HISTORY_TAIL = 8192, 1024, 4096

local function note(tenant, id, now, move, by, reason)
  local history = key(tenant, 'history', id)
  local size = redis.call('APPEND', history, int(now) .. '\t' .. move .. '\t' .. by .. '\t' .. (reason or '') .. '\n')
  if size > HISTORY_MAX then
    local text = redis.call('GET', history)
    local head = string.match(string.sub(text, 1, HISTORY_HEAD), '^(.*\n)')
    local tail = string.match(string.sub(text, -HISTORY_TAIL), '\n(.*)$')
    redis.call('SET', history, head .. tail)
  end
end

local function count(tenant, state, reason, by)
  local counts = key(tenant, 'counts')
  redis.call('HINCRBY', counts, state, by)
  if reason and reason ~= '' and (state == 'held' or state == 'dead') then
    redis.call('HINCRBY', counts, state .. ':' .. reason, by)
  end
end

-- A hint is wanted unless one is on its way: the mark is the time it was asked for.
local function want_hint(tenant, stage, now)
  return redis.call('SET', key(tenant, 'hint', stage), int(now), 'NX') and 1 or 0
end

-- A text in a hash, in pieces: a hash takes little room as long as no value of it is over 64 bytes.
local function in_pieces(hash, field, told)
  local pieces = math.ceil(#told / 64)
  for i = 1, pieces do redis.call('HSET', hash, field .. ':' .. i, string.sub(told, 64 * i - 63, 64 * i)) end
  while redis.call('HDEL', hash, field .. ':' .. pieces + 1) == 1 do pieces = pieces + 1 end
end

-- The history of a final event goes into its hash, unless it is long; times are counted from when it was received.
local function fold(tenant, id)
  local event, history = key(tenant, 'event', id), key(tenant, 'history', id)
  local told, from = redis.call('GET', history) or '', redis.call('HGET', event, 'received_at')
  if #told > HISTORY_HEAD then return end
  redis.call('DEL', history)
  in_pieces(event, 'history', (string.gsub(told, '(%d+)(\t[^\n]*\n)', function(at, line) return int(at - from) .. line end)))
end

-- Gives a registration back when `id` has it. `trace` still finds who tried.
local function release(tenant, id, registration)
  if registration and registration ~= '' then
    local record = key(tenant, 'registration', registration)
    if redis.call('HGET', record, 'owner') == id then
      redis.call('HDEL', record, 'owner')
      redis.call('HSET', record, 'e:' .. id, '')
      redis.call('PEXPIRE', record, 34560000000, 'NX') -- 400 days, as events
    end
  end
end

-- Puts an event under its candidate's names (12 characters each), instead of those that it had. A bucket holds when its
-- events were received: 10 bytes each, from which `events` finds them again.
local function name(tenant, id, who)
  local event = key(tenant, 'event', id)
  local old, at = unpack(redis.call('HMGET', event, 'who', 'received_at'))
  if (old or '') == who then return end
  local function bucket(one) return key(tenant, 'names', string.sub(one, 1, 2) .. string.byte(one, 3) % 4) end
  for one in string.gmatch(old or '', string.rep('.', 12)) do redis.call('LREM', bucket(one), 1, at) end
  for one in string.gmatch(who, string.rep('.', 12)) do redis.call('RPUSH', bucket(one), at) end
  redis.call('HSET', event, 'who', who)
end

-- Moves an event: state, reason, counts, index and lease together. The caller has compared the state already.
local function enter(tenant, id, from, to, now, change)
  local event = key(tenant, 'event', id)
  local old_reason = redis.call('HGET', event, 'reason')
  count(tenant, from, old_reason or nil, -1)
  count(tenant, to, change.reason, 1)
  if INDEX[from] then redis.call('ZREM', key(tenant, INDEX[from]), id) end
  if INDEX[to] then redis.call('ZADD', key(tenant, INDEX[to]), int(change.due or now), id) end
  redis.call('HDEL', event, 'reason', 'detail', 'lease', 'batch', 'expiries', 'alone', 'intent')
  redis.call('HSET', event, 'state', to)
  if change.reason then redis.call('HSET', event, 'reason', change.reason) end
  if change.detail then redis.call('HSET', event, 'detail', change.detail) end
  if to ~= 'ready' then redis.call('DEL', key(tenant, 'outcome', id)) end
  if FINAL[to] then redis.call('PEXPIRE', key(tenant, 'payload', id), int(change.keep or 0)) end
  note(tenant, id, now, change.move, change.by, change.reason)
  if FINAL[to] then -- written anew it is small again, which an intent had ended
    redis.call('HDEL', event, 'nonce')
    local fields = redis.call('HGETALL', event)
    redis.call('DEL', event)
    redis.call('HSET', event, unpack(fields))
    fold(tenant, id)
  end
end
