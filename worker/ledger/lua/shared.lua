-- Prepended to every script. Keys, time, and the one place where an event changes its state.
-- The key schema is prose at the top of worker/ledger/keys.py. Every script is safe to repeat.

-- redis-py repeats a call whose reply was lost. So a script that has an effect keeps its answer (`say`), in the same step,
-- under its caller's own key (KEYS[1]) and the call's nonce (the last of ARGV): the repeat gets that answer and moves
-- nothing. The caller's next call overwrites it. No personal data: states, ids and times.
local SAID_KEPT = 600000 -- ms: longer than a caller goes on repeating
local nonce = KEYS[1] and table.remove(ARGV)

local function say(answer)
  if nonce then redis.call('SET', KEYS[1], nonce .. cjson.encode({ answer }), 'PX', SAID_KEPT) end
  return answer
end

local said = nonce and redis.call('GET', KEYS[1])
said = said and string.sub(said, 1, #nonce) == nonce and cjson.decode(string.sub(said, #nonce + 1))[1]
if said and not (type(said) == 'table' and said.claimed) then return said end

local function key(tenant, kind, id)
  return id and 'er:' .. tenant .. ':' .. kind .. ':' .. id or 'er:' .. tenant .. ':' .. kind
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

local function line_of(now, move, by, reason)
  return int(now) .. '\t' .. move .. '\t' .. by .. (reason and '\t' .. reason or '') .. '\n'
end

local function note(tenant, id, now, move, by, reason)
  local history = key(tenant, 'history', id)
  local size = redis.call('APPEND', history, line_of(now, move, by, reason))
  if size > HISTORY_MAX then
    local text = redis.call('GET', history)
    local head = string.match(string.sub(text, 1, HISTORY_HEAD), '^(.*\n)')
    local tail = string.match(string.sub(text, -HISTORY_TAIL), '\n(.*)$')
    redis.call('SET', history, head .. tail)
  end
end

-- What a script adds to the counts, written once at its end where it moves many (`begin_counts`, `end_counts`).
local counted

local function add(tenant, name, by)
  if counted then counted[name] = (counted[name] or 0) + by else redis.call('HINCRBY', key(tenant, 'counts'), name, by) end
end

local function begin_counts() counted = {} end

local function end_counts(tenant)
  for name, by in pairs(counted) do
    if by ~= 0 then redis.call('HINCRBY', key(tenant, 'counts'), name, by) end
  end
  counted = nil
end

local function count(tenant, state, reason, by)
  add(tenant, state, by)
  if reason and reason ~= '' and (state == 'held' or state == 'dead') then add(tenant, state .. ':' .. reason, by) end
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

local function by_name(fields)
  local named = {}
  for i = 1, #fields, 2 do named[fields[i]] = fields[i + 1] end
  return named
end

-- A hint is a message of Celery's (protocol 2), and goes on its queue together with what it is about: no publisher can
-- fail between the two. What is in it says only: this tenant has work at this stage.
local HINT = '{"body": "[[\\"%s\\"], {}, {\\"callbacks\\": null, \\"errbacks\\": null, \\"chain\\": null, \\"chord\\": null}]", '
  .. '"content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang": "py", "task": "tasks.%s", '
  .. '"id": "%s", "root_id": "%s", "parent_id": null, "group": null, "eta": null, "expires": null, "retries": 0, '
  .. '"timelimit": [null, null], "argsrepr": "[\'%s\']", "kwargsrepr": "{}", "origin": "the ledger"}, "properties": '
  .. '{"correlation_id": "%s", "reply_to": "", "delivery_mode": 2, "delivery_info": {"exchange": "", '
  .. '"routing_key": "%s"}, "priority": 0, "delivery_tag": "%s"}}'
local HINT_QUEUE = 'examrelay'

local function send_hint(tenant, stage, now)
  local id = 'hint-' .. int(redis.call('INCR', 'er:hints'))
  redis.call('SET', key(tenant, 'hint', stage), int(now))
  redis.call('LPUSH', HINT_QUEUE, string.format(HINT, tenant, stage, id, id, tenant, id, HINT_QUEUE, id))
end

-- Unless one is on its way: the mark is the time it was sent.
local function hint(tenant, stage, now)
  if redis.call('EXISTS', key(tenant, 'hint', stage)) == 0 then send_hint(tenant, stage, now) end
end

-- A task ends: its slot is free, and if there is more to do somebody is hinted. Only one who had a slot looks, or tasks
-- that find all slots busy would go on waking each other.
local function end_task(tenant, stage, token, now)
  if redis.call('ZREM', key(tenant, 'slots:' .. stage), token) == 0 then return end
  if redis.call('ZCOUNT', key(tenant, 'due:' .. stage), '-inf', int(now)) == 0 then return end
  local closed = stage == 'sync' and redis.call('HGET', key(tenant, 'gate'), 'closed_until')
  if not closed or tonumber(closed) <= now then hint(tenant, stage, now) end
end

-- A text as fields of a hash, in pieces: a hash takes little room as long as no value of it is over 64 bytes. `gone`
-- gets the names of pieces that a longer text may have left.
local function in_pieces(fields, gone, field, told)
  local pieces = math.ceil(#told / 64)
  for i = 1, pieces do fields[field .. ':' .. i] = string.sub(told, 64 * i - 63, 64 * i) end
  for i = pieces + 1, pieces + 8 do table.insert(gone, field .. ':' .. i) end
end

local function set_fields(hash, fields)
  local flat = {}
  for name, value in pairs(fields) do
    table.insert(flat, name)
    table.insert(flat, value)
  end
  if #flat > 0 then redis.call('HSET', hash, unpack(flat)) end
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

-- Whether the first of `who` (names of 12 characters, the best first) is not among the other's.
local function unknown_to(who, other)
  for one in string.gmatch(other, string.rep('.', 12)) do
    if one == string.sub(who, 1, 12) then return false end
  end
  return true
end

-- Whether two events are about two people. `trace.py` says the same.
local function strangers(who, other)
  return who ~= '' and other ~= '' and unknown_to(who, other) and unknown_to(other, who)
end

-- Puts an event, received `at`, under its candidate's names (12 characters each) instead of `old` ones; the caller sets
-- its `who`. A bucket holds, in 10 bytes each, when its events were received, from which `events` finds them again, and
-- ten bits of the name.
local function name(tenant, old, who, at)
  if old == who then return end
  local function put(command, names, ...)
    for one in string.gmatch(names, string.rep('.', 12)) do
      local bits = (string.byte(one, 3) * 32 + string.byte(one, 4)) % 1024
      local arguments = { key(tenant, 'names', string.sub(one, 1, 2)), ... }
      table.insert(arguments, int(at * 1024 + bits))
      redis.call(command, unpack(arguments))
    end
  end
  put('LREM', old, 1)
  put('RPUSH', who)
end

-- What is only there while an event waits or is claimed.
local PASSING = { 'reason', 'detail', 'lease', 'batch', 'expiries', 'alone', 'intent' }

-- A final event is written anew: small again, which an intent had ended, and with its history, unless that is long;
-- times are counted from when it was received, and that it was goes without saying.
local function conclude(tenant, id, to, now, change)
  local event, history = key(tenant, 'event', id), key(tenant, 'history', id)
  local fields = by_name(redis.call('HGETALL', event))
  for _, name in ipairs(PASSING) do fields[name] = nil end
  fields.doubt = nil
  fields.nonce, fields.state, fields.reason, fields.detail = nil, to, change.reason, change.detail
  for name, value in pairs(change.fields or {}) do fields[name] = value end
  local told = (redis.call('GET', history) or '') .. line_of(now, change.move, change.by, change.why or change.reason)
  if #told <= HISTORY_HEAD then
    local from = fields.received_at
    told = string.gsub(told, '(%d+)(\t[^\n]*\n)', function(at, line) return int(at - from) .. line end)
    in_pieces(fields, {}, 'history', (string.gsub(told, '^0\trecord\t%a+\n', '')))
    redis.call('DEL', event, history, key(tenant, 'outcome', id))
  else
    note(tenant, id, now, change.move, change.by, change.why or change.reason)
    redis.call('DEL', event, key(tenant, 'outcome', id))
  end
  set_fields(event, fields)
  redis.call('PEXPIRE', key(tenant, 'payload', id), int(change.keep or 0))
end

-- Moves an event: state, reason, counts, index and lease together. The caller has compared the state already.
-- `change`: move, by, and what there is of reason, why (an operator's own words, for the history), detail, keep (the
-- payload, in ms), fields (more to set).
local function enter(tenant, id, from, to, now, change)
  local event = key(tenant, 'event', id)
  if from == 'held' or from == 'dead' then
    count(tenant, from, redis.call('HGET', event, 'reason') or nil, -1)
  else
    count(tenant, from, nil, -1)
  end
  count(tenant, to, change.reason, 1)
  if INDEX[from] then redis.call('ZREM', key(tenant, INDEX[from]), id) end
  if FINAL[to] then return conclude(tenant, id, to, now, change) end
  local at = (to == 'held' or to == 'dead') and redis.call('HGET', event, 'received_at') or int(now)
  redis.call('ZADD', key(tenant, INDEX[to]), at, id)
  redis.call('HDEL', event, unpack(PASSING))
  local fields = { state = to, reason = change.reason, detail = change.detail }
  for name, value in pairs(change.fields or {}) do fields[name] = value end
  set_fields(event, fields)
  if from == 'ready' then redis.call('DEL', key(tenant, 'outcome', id)) end
  note(tenant, id, now, change.move, change.by, change.why or change.reason)
end
