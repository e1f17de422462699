-- Prepended to every script, after what Python decides and the scripts need as well (`facts` in worker/ledger/client.py):
-- INDEX, FINAL, IDENTITY_KEPT and PAYLOAD_KEPT in ms, HINT, HINT_QUEUE. The keys are described in worker/ledger/keys.py.
-- Here are keys, time, and the one place where an event changes its state. Every script is safe to repeat.

-- redis-py repeats a call whose reply was lost. So a script that has an effect keeps its answer (`say`), in the same step,
-- under its caller's own key (KEYS[1]) and the call's nonce (the last of ARGV): the repeat gets that answer and moves
-- nothing. The caller's next call overwrites it. No personal data: states, ids and times.
local ANSWER_KEPT = 600000 -- ms: longer than a caller goes on repeating
local nonce = KEYS[1] and table.remove(ARGV)

local function say(answer)
  if nonce then redis.call('SET', KEYS[1], nonce .. cjson.encode({ answer }), 'PX', ANSWER_KEPT) end
  return answer
end

local earlier = nonce and redis.call('GET', KEYS[1])
earlier = earlier and string.sub(earlier, 1, #nonce) == nonce and cjson.decode(string.sub(earlier, #nonce + 1))[1]
if earlier and not (type(earlier) == 'table' and earlier.claimed) then return earlier end

local function key(...) return table.concat({ 'er', ... }, ':') end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function int(number) return string.format('%d', number) end

local function by_name(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

local function set_fields(hash, fields)
  local flat = {}
  for name, value in pairs(fields) do flat[#flat + 1], flat[#flat + 2] = name, value end
  redis.call('HSET', hash, unpack(flat))
end

-- A script changes tables, and writes what has changed at its end (`write`): each hash in one command, an index in one
-- for all events. One that fails on the way has changed nothing.
local hashes, counted, leaving, entering, named, unnamed, deleted, expires = {}, {}, {}, {}, {}, {}, {}, {}

local function put(commands, name, ...)
  local arguments = commands[name] or {}
  for _, value in ipairs({ ... }) do arguments[#arguments + 1] = value end
  commands[name] = arguments
end

-- The fields of a hash, read once. What is changed in this table is written; a field that is nil is deleted.
local function hash(...)
  local name = key(...)
  if not hashes[name] then
    local flat = redis.call('HGETALL', name)
    hashes[name] = { fields = by_name(flat), stored = by_name(flat) }
  end
  return hashes[name].fields
end

local function write_hash(name, fields, stored)
  local set, gone = {}, {}
  for field, value in pairs(fields) do
    if type(value) == 'number' then value = int(value) end
    if stored[field] ~= value then set[#set + 1], set[#set + 2] = field, value end
  end
  for field in pairs(stored) do
    if fields[field] == nil then gone[#gone + 1] = field end
  end
  if gone[1] then redis.call('HDEL', name, unpack(gone)) end -- first: memory that a hash once took it keeps
  if set[1] then redis.call('HSET', name, unpack(set)) end
end

local function write()
  if deleted.DEL then redis.call('DEL', unpack(deleted.DEL)) end
  for name, one in pairs(hashes) do write_hash(name, one.fields, one.stored) end
  for index, ids in pairs(leaving) do redis.call('ZREM', index, unpack(ids)) end
  for index, places in pairs(entering) do redis.call('ZADD', index, unpack(places)) end
  for _, one in ipairs(unnamed) do redis.call('LREM', one.bucket, 1, one.place) end
  for bucket, places in pairs(named) do redis.call('RPUSH', bucket, unpack(places)) end
  for name, ms in pairs(expires) do redis.call('PEXPIRE', name, ms) end
  for counts, names in pairs(counted) do
    for name, by in pairs(names) do
      if by ~= 0 then redis.call('HINCRBY', counts, name, by) end
    end
  end
end

-- An event's history is a line a move, in the event. Times are counted from when it was received, and the first line
-- (record) is left out: it is always the same. A long one loses its middle.
local HISTORY_MAX, HISTORY_HEAD, HISTORY_TAIL = 8192, 1024, 4096

local function note(event, now, by, change)
  local line = table.concat({ int(now - (event.received_at or now)), change.move, by, change.why or change.reason }, '\t') .. '\n'
  local text = (event.history or '') .. line
  if #text > HISTORY_MAX then
    local head = string.match(string.sub(text, 1, HISTORY_HEAD), '^(.*\n)')
    text = head .. string.match(string.sub(text, -HISTORY_TAIL), '\n(.*)$')
  end
  event.history = text
end

local function add(tenant, name, by)
  local counts = key(tenant, 'counts')
  counted[counts] = counted[counts] or {}
  counted[counts][name] = (counted[counts][name] or 0) + by
end

local function count(tenant, state, reason, by)
  add(tenant, state, by)
  if reason and (state == 'held' or state == 'dead') then add(tenant, state .. ':' .. reason, by) end
end

-- How many members of an index come before (score, id), or with `too` up to it, whether or not it is still there.
local function rank(place, score, id, too)
  local low, high = redis.call('ZCOUNT', place, '-inf', '(' .. score), redis.call('ZCOUNT', place, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local there = redis.call('ZRANGE', place, int(middle), int(middle))[1]
    if there < id or (too and there == id) then low = middle + 1 else high = middle end
  end
  return low
end

-- A hint is a message of Celery's, and goes on its queue together with what it is about: no publisher can fail between the
-- two. None is sent while one is on its way (the mark says since when), or for `patience` ms. Returns how many were sent.
local function hint(tenant, now, patience)
  local sent = tonumber(redis.call('GET', key(tenant, 'hint')) or nil)
  if sent and now - sent < (patience or math.huge) then return 0 end
  local id = 'hint-' .. int(redis.call('INCR', 'er:hints'))
  redis.call('SET', key(tenant, 'hint'), int(now))
  redis.call('LPUSH', HINT_QUEUE, (string.gsub(HINT, '%$(%a+)', { tenant = tenant, id = id })))
  return 1
end

-- The indexes of what may be claimed: behind a closed gate, of what is not prepared yet.
local function claimable(tenant, now)
  local open = tonumber(redis.call('HGET', key(tenant, 'gate'), 'closed_until') or 0) <= now
  return { key(tenant, INDEX.received), open and key(tenant, INDEX.ready) or nil }
end

local function has_work(tenant, now)
  for _, index in ipairs(claimable(tenant, now)) do
    if redis.call('ZCOUNT', index, '-inf', int(now)) > 0 then return true end
  end
end

local function keep_identity(...) expires[key(...)] = IDENTITY_KEPT end

-- Notes that an event came to a registration: so `trace` finds who tried there.
local function note_try(tenant, id, registration)
  hash(tenant, 'registration', registration)['e:' .. id] = ''
  keep_identity(tenant, 'registration', registration)
end

-- Gives a registration back when `id` has it.
local function release(tenant, id, registration)
  if registration and hash(tenant, 'registration', registration).owner == id then
    hash(tenant, 'registration', registration).owner = nil
    note_try(tenant, id, registration)
  end
end

-- Whether two events are about two people: the best name (of 12 characters, the first) of neither is among the other's.
-- Where one has no names, nothing says so.
local function strangers(who, other)
  local function has(names, wanted)
    for name in string.gmatch(names, string.rep('.', 12)) do
      if name == string.sub(wanted, 1, 12) then return true end
    end
  end
  return who ~= '' and other ~= '' and not has(who, other) and not has(other, who)
end

-- What the ledger holds of the delivery of `event`, which has `id`: {version applied, registration it was written to, rev,
-- siblings}; a sibling is another version: {version, its event, state, received_at, 1 if of another person, doubt}.
local function delivery_record(tenant, id, event)
  if not event.delivery then return { '', '', '0', {} } end
  local record, siblings = hash(tenant, 'delivery', event.delivery), {}
  for field, sibling in pairs(record) do
    local version = string.match(field, '^v:(.*)$')
    if version and sibling ~= id then
      local other = hash(tenant, 'event', sibling)
      local stranger = strangers(event.who or '', other.who or '') and 1 or 0
      table.insert(siblings, { version, sibling, other.state or '', other.received_at or '0', stranger, other.doubt or '' })
    end
  end
  local writer = record.applied and record['v:' .. record.applied]
  local registration = writer and hash(tenant, 'event', writer).registration
  return { record.applied or '', registration or '', tostring(record.rev or '0'), siblings }
end

-- Puts an event under its candidate's names (12 characters each) instead of its present ones. A bucket holds, in 10 bytes
-- each, when its events were received, from which `events` finds them again, and ten bits of the name. `trace.py` reads
-- them; that both agree the audit looks at.
local function set_names(tenant, event, who)
  local function each(names, act)
    for name in string.gmatch(names, string.rep('.', 12)) do
      local bits = (string.byte(name, 3) * 32 + string.byte(name, 4)) % 1024
      act(key(tenant, 'names', string.sub(name, 1, 2)), int(event.received_at * 1024 + bits))
    end
  end
  if (event.who or '') == who then return end
  each(event.who or '', function(bucket, place) table.insert(unnamed, { bucket = bucket, place = place }) end)
  each(who, function(bucket, place) put(named, bucket, place) end)
  event.who = who ~= '' and who or nil
end

-- What is only there while an event waits or is claimed, and what goes when it is final.
local PASSING = { 'reason', 'detail', 'words', 'lease', 'batch', 'expiries', 'alone', 'intent' }
local FINISHED = { 'nonce', 'doubt' }

local function clear(event, names)
  for _, name in ipairs(names) do event[name] = nil end
end

-- Moves an event: state, reason, counts, index and lease together. The caller has compared the state already.
-- `change`: move, and what there is of reason, why (an operator's own words), detail, fields (more), lease_ends (it stays leased).
local function enter(tenant, id, to, now, by, change)
  local event = hash(tenant, 'event', id)
  local from = event.state
  count(tenant, from, event.reason, -1)
  count(tenant, to, change.reason, 1)
  if INDEX[from] then put(leaving, key(tenant, INDEX[from]), id) end
  note(event, now, by, change)
  clear(event, change.lease_ends and { 'reason', 'detail' } or PASSING)
  if FINAL[to] then clear(event, FINISHED) end
  event.state, event.reason, event.detail = to, change.reason, change.detail
  for name, value in pairs(change.fields or {}) do event[name] = value end
  if from == 'ready' then put(deleted, 'DEL', key(tenant, 'outcome', id)) end -- stored by earlier releases
  if FINAL[to] then -- written anew, so that Redis stores it small again: an intent had ended that
    put(deleted, 'DEL', key(tenant, 'event', id))
    hashes[key(tenant, 'event', id)].stored = {}
    expires[key(tenant, 'payload', id)] = PAYLOAD_KEPT
  else
    local at = (to == 'held' or to == 'dead') and event.received_at or change.lease_ends or int(now)
    put(entering, key(tenant, INDEX[to]), at, id)
  end
end
