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

-- Gives a registration back when `id` has it.
local function release(tenant, id, registration)
  if registration and registration ~= '' then
    local record = key(tenant, 'registration', registration)
    if redis.call('HGET', record, 'owner') == id then redis.call('HDEL', record, 'owner') end
  end
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
  if FINAL[to] then
    redis.call('DEL', key(tenant, 'outcome', id))
    redis.call('PEXPIRE', key(tenant, 'payload', id), int(change.keep or 0))
  end
  note(tenant, id, now, change.move, change.by, change.reason)
end
