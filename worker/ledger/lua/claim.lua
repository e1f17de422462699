#!lua flags=allow-oom
-- claim: takes what is due at a stage, 1 to `limit` events, under a token until the lease ends.
-- The due time of a claimed event is the end of its lease, so a lease that expires needs nobody to free it.
-- Leases that expire in a row halve the event's batch; three expiries alone bury it (a poison event hurts only itself).
-- ARGV: tenant, stage, limit, token, lease in ms, slots (0: no limit), after how many ms a slot is free at the latest
-- Returns {why nothing: '' | 'closed' | 'busy', now, others wait, works}; a work is
-- {id, fields of the event, payload or outcome, delivery}; a delivery is {applied, registration, rev, siblings}, what
-- the ledger knows of the sitting, and a sibling another version of it: {version, event, state, received_at, who, doubt}.
local tenant, stage, limit, token, lease, slots, slot_span = unpack(ARGV)
limit, slots = tonumber(limit), tonumber(slots)
local now = now_ms()
local until_ = now + tonumber(lease)
local due = key(tenant, 'due:' .. stage)
local slot_index = key(tenant, 'slots:' .. stage)
local blob = stage == 'process' and 'payload' or 'outcome'
local MAX_ALONE = 3
local PACED = 3 -- slots that a pace may need, whatever `concurrency` says: of four children one is left to others

local function known_of(id, delivery)
  if not delivery then return { '', '', '0', {} } end
  local named, siblings = by_name(redis.call('HGETALL', key(tenant, 'delivery', delivery))), {}
  for field, event in pairs(named) do
    local version = string.match(field, '^v:(.*)$')
    if version and event ~= id then
      local other = redis.call('HMGET', key(tenant, 'event', event), 'state', 'received_at', 'who', 'doubt')
      table.insert(siblings, { version, event, other[1] or '', other[2] or '0', other[3] or '', other[4] or '' })
    end
  end
  local by = named.applied and named['v:' .. named.applied]
  local registration = by and redis.call('HGET', key(tenant, 'event', by), 'registration')
  return { named.applied or '', registration or '', named.rev or '0', siblings }
end

local function work_of(id, fields, named)
  local delivery = stage == 'sync' and named.delivery
  return { id, fields, redis.call('GET', key(tenant, blob, id)) or '', known_of(id, delivery) }
end

if said then -- the same call again: what it took and still has
  local works = {}
  for _, id in ipairs(said.claimed) do
    local fields = redis.call('HGETALL', key(tenant, 'event', id))
    local named = by_name(fields)
    if named.lease == token then table.insert(works, work_of(id, fields, named)) end
  end
  return { '', said.now, said.others, works }
end

-- A task's first claim answers its hint; at its later ones the hint under way is another's.
local answers = not redis.call('ZSCORE', slot_index, token)
if answers then redis.call('DEL', key(tenant, 'hint', stage)) end
if stage == 'sync' then
  local closed, interval, busy = unpack(redis.call('HMGET', key(tenant, 'gate'), 'closed_until', 'interval', 'busy'))
  if closed and tonumber(closed) > now then return { 'closed', now, 0, {} } end
  -- Enough tasks that while they are busy with their calls, the pace's every turn is taken.
  if interval and busy then slots = math.min(math.max(slots, PACED), math.max(1, math.ceil(busy / interval + 0.25))) end
end
redis.call('ZREMRANGEBYSCORE', slot_index, '-inf', int(now))
if slots > 0 and answers and redis.call('ZCARD', slot_index) >= slots then
  return { 'busy', now, 0, {} }
end

-- An event whose lease expired may only be claimed in a smaller batch; alone too often, it is buried.
local function allowed_batch(id, event, named)
  if not named.lease and not named.expiries then return limit end
  local batch, alone = tonumber(named.batch or limit), tonumber(named.alone or 0)
  if named.lease then
    redis.call('HDEL', event, 'lease')
    redis.call('HINCRBY', event, 'expiries', 1)
    if batch == 1 then alone = redis.call('HINCRBY', event, 'alone', 1) end
    batch = math.max(1, math.floor(batch / 2))
    redis.call('HSET', event, 'batch', batch)
    note(tenant, id, now, 'lease.expired', stage)
  end
  if alone < MAX_ALONE then return batch end
  release(tenant, id, named.registration)
  enter(tenant, id, named.state, 'dead', now, {
    reason = 'worker_killer', move = 'bury', by = stage,
    detail = 'alone in its batch, it ended ' .. MAX_ALONE .. ' workers',
    fields = { doubt = named.intent or named.doubt },
  })
  return 0
end

local taken, batch = {}, limit
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(now), 'LIMIT', 0, limit)) do
  local event = key(tenant, 'event', id)
  local fields = redis.call('HGETALL', event)
  local named = by_name(fields)
  local allowed = allowed_batch(id, event, named)
  if allowed > 0 and #taken < math.min(batch, allowed) then
    batch = math.min(batch, allowed)
    table.insert(taken, { id, event, fields, named })
  end
end
local works, ids = {}, {}
for i, each in ipairs(taken) do
  local id, event, fields, named = unpack(each)
  redis.call('HSET', event, 'lease', token, 'batch', #taken)
  redis.call('ZADD', due, int(until_), id)
  works[i], ids[i] = work_of(id, fields, named), id
end

if #works > 0 then redis.call('ZADD', slot_index, int(math.min(until_, now + slot_span)), token) end
-- Hints in the queue, but for this tenant's own: another tenant waits.
local own = redis.call('EXISTS', key(tenant, 'hint', 'process'), key(tenant, 'hint', 'sync'))
local others = redis.call('LLEN', HINT_QUEUE) > own and 1 or 0
local more = redis.call('ZCOUNT', due, '-inf', int(now)) > 0
local free = slots == 0 or redis.call('ZCARD', slot_index) < slots
if #works > 0 and more and free then hint(tenant, stage, now) end
if #works > 0 then say({ claimed = ids, now = now, others = others }) end
return { '', now, others, works }
