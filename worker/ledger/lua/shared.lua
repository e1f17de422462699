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
local function int(number) return string.format('%d', number) end
local function keep_identity(record) redis.call('PEXPIRE', record, IDENTITY_KEPT) end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function by_name(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

-- Some fields of a hash by their names; nil where it has none.
local function read(hash, ...)
  local fields, values = {}, redis.call('HMGET', hash, ...)
  for i, name in ipairs({ ... }) do fields[name] = values[i] or nil end
  return fields
end

local function set_fields(hash, fields)
  local flat = {}
  for name, value in pairs(fields) do flat[#flat + 1], flat[#flat + 2] = name, value end
  redis.call('HSET', hash, unpack(flat))
end

-- An event's history is a line a move; a long one loses its middle. One of a final event that is short enough for a hash to
-- stay small is folded into the event (`conclude`).
local HISTORY_MAX, HISTORY_HEAD, HISTORY_TAIL, HISTORY_FOLDED = 8192, 1024, 4096, 256

local function line_of(now, by, change)
  return table.concat({ int(now), change.move, by, change.why or change.reason }, '\t') .. '\n'
end

local function note(tenant, id, now, by, change)
  local history = key(tenant, 'history', id)
  if redis.call('APPEND', history, line_of(now, by, change)) > HISTORY_MAX then
    local text = redis.call('GET', history)
    local head = string.match(string.sub(text, 1, HISTORY_HEAD), '^(.*\n)')
    redis.call('SET', history, head .. string.match(string.sub(text, -HISTORY_TAIL), '\n(.*)$'))
  end
end

-- What a script adds to the counts. Each is written once, by `write_counts` at the script's end: a batch moves many.
local counted = {}
local function add(name, by) counted[name] = (counted[name] or 0) + by end

local function count(state, reason, by)
  add(state, by)
  if reason and (state == 'held' or state == 'dead') then add(state .. ':' .. reason, by) end
end

local function write_counts(tenant)
  for name, by in pairs(counted) do
    if by ~= 0 then redis.call('HINCRBY', key(tenant, 'counts'), name, by) end
  end
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

-- Notes that an event came to a registration: so `trace` finds who tried there.
local function note_try(tenant, id, registration)
  local record = key(tenant, 'registration', registration)
  redis.call('HSET', record, 'e:' .. id, '')
  keep_identity(record)
end

-- Gives a registration back when `id` has it.
local function release(tenant, id, registration)
  local record = key(tenant, 'registration', registration or '')
  if registration and redis.call('HGET', record, 'owner') == id then
    redis.call('HDEL', record, 'owner')
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
  local record, siblings = by_name(redis.call('HGETALL', key(tenant, 'delivery', event.delivery))), {}
  for field, sibling in pairs(record) do
    local version = string.match(field, '^v:(.*)$')
    if version and sibling ~= id then
      local other = read(key(tenant, 'event', sibling), 'state', 'received_at', 'who', 'doubt')
      local stranger = strangers(event.who or '', other.who or '') and 1 or 0
      table.insert(siblings, { version, sibling, other.state or '', other.received_at or '0', stranger, other.doubt or '' })
    end
  end
  local writer = record.applied and record['v:' .. record.applied]
  local registration = writer and redis.call('HGET', key(tenant, 'event', writer), 'registration')
  return { record.applied or '', registration or '', record.rev or '0', siblings }
end

-- Puts an event, received `at`, under its candidate's names (12 characters each) instead of `old` ones; the caller sets
-- its `who`. A bucket holds, in 10 bytes each, when its events were received, from which `events` finds them again, and
-- ten bits of the name. `trace.py` reads them; that both agree the audit looks at.
local function set_names(tenant, old, who, at)
  if old == who then return end
  local function put(command, names, ...)
    for name in string.gmatch(names, string.rep('.', 12)) do
      local bits = (string.byte(name, 3) * 32 + string.byte(name, 4)) % 1024
      local arguments = { key(tenant, 'names', string.sub(name, 1, 2)), ... }
      table.insert(arguments, int(at * 1024 + bits))
      redis.call(command, unpack(arguments))
    end
  end
  put('LREM', old, 1)
  put('RPUSH', who)
end

-- What is only there while an event waits or is claimed.
local PASSING = { 'reason', 'detail', 'lease', 'batch', 'expiries', 'alone', 'intent' }

-- A final event is written anew: small again, which an intent had ended, and with its history; times in that are counted
-- from when it was received, and the first line (record) is left out: it is always the same.
local function conclude(tenant, id, now, by, fields, change)
  local event, history = key(tenant, 'event', id), key(tenant, 'history', id)
  local kept, gone = by_name(redis.call('HGETALL', event)), { event, key(tenant, 'outcome', id) }
  for _, name in ipairs(PASSING) do kept[name] = nil end
  kept.nonce, kept.doubt = nil, nil
  for name, value in pairs(fields) do kept[name] = value end
  local lines = (redis.call('GET', history) or '') .. line_of(now, by, change)
  lines = string.gsub(lines, '(%d+)(\t[^\n]*\n)', function(at, rest) return int(at - kept.received_at) .. rest end)
  lines = string.gsub(lines, '^0\trecord\t%a+\n', '')
  if #lines <= HISTORY_FOLDED then
    kept.history = lines
    table.insert(gone, history)
  else
    note(tenant, id, now, by, change)
  end
  redis.call('DEL', unpack(gone))
  set_fields(event, kept)
  redis.call('PEXPIRE', key(tenant, 'payload', id), PAYLOAD_KEPT)
end

-- Moves an event: state, reason, counts, index and lease together. The caller has compared the state already.
-- `change`: move, and what there is of reason, why (an operator's own words), detail, fields (more), lease_ends (it stays leased).
local function enter(tenant, id, from, to, now, by, change)
  local event, was_stopped = key(tenant, 'event', id), from == 'held' or from == 'dead'
  count(from, was_stopped and redis.call('HGET', event, 'reason'), -1)
  count(to, change.reason, 1)
  if INDEX[from] then redis.call('ZREM', key(tenant, INDEX[from]), id) end
  local fields = change.fields or {}
  fields.state, fields.reason, fields.detail = to, change.reason, change.detail
  if FINAL[to] then return conclude(tenant, id, now, by, fields, change) end
  local at = (to == 'held' or to == 'dead') and redis.call('HGET', event, 'received_at') or change.lease_ends or int(now)
  redis.call('ZADD', key(tenant, INDEX[to]), at, id)
  redis.call('HDEL', event, unpack(change.lease_ends and { 'reason', 'detail' } or PASSING))
  set_fields(event, fields)
  if from == 'ready' then redis.call('DEL', key(tenant, 'outcome', id)) end -- stored by earlier releases
  note(tenant, id, now, by, change)
end
