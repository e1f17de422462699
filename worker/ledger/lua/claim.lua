#!lua flags=allow-oom
-- claim: takes what is due at a stage, 1 to `limit` events, under a token until the lease ends.
-- The due time of a claimed event is the end of its lease, so a lease that expires needs nobody to free it.
-- Leases that expire in a row halve the event's batch; three expiries alone bury it (a poison event hurts only itself).
-- ARGV: tenant, stage, limit, token, lease in ms, slots (0: no limit), queue that hints wait in
-- Returns {why nothing: '' | 'closed' | 'busy', now, hint wanted, others wait, works}; a work is
-- {id, fields of the event, payload or outcome, delivery}; a delivery is {applied, registration, rev, siblings}, what
-- the ledger knows of the sitting, and a sibling another version of it: {version, event, state, received_at}.
local tenant, stage, limit, token, lease, slots, queue = unpack(ARGV)
limit, slots = tonumber(limit), tonumber(slots)
local now = now_ms()
local until_ = now + tonumber(lease)
local due = key(tenant, 'due:' .. stage)
local slot_index = key(tenant, 'slots:' .. stage)
local MAX_ALONE = 3

redis.call('DEL', key(tenant, 'hint', stage))
if stage == 'sync' then
  local closed = redis.call('HGET', key(tenant, 'gate'), 'closed_until')
  if closed and tonumber(closed) > now then return { 'closed', now, 0, 0, {} } end
end
redis.call('ZREMRANGEBYSCORE', slot_index, '-inf', int(now))
if slots > 0 and not redis.call('ZSCORE', slot_index, token) and redis.call('ZCARD', slot_index) >= slots then
  return { 'busy', now, 0, 0, {} }
end

-- An event whose lease expired may only be claimed in a smaller batch; alone too often, it is buried.
local function allowed_batch(id, event)
  local held = redis.call('HMGET', event, 'lease', 'batch', 'expiries', 'alone')
  local batch = tonumber(held[2] or limit)
  if held[1] then
    redis.call('HDEL', event, 'lease')
    redis.call('HINCRBY', event, 'expiries', 1)
    if batch == 1 then redis.call('HINCRBY', event, 'alone', 1) end
    batch = math.max(1, math.floor(batch / 2))
    redis.call('HSET', event, 'batch', batch)
    note(tenant, id, now, 'lease.expired', stage)
  end
  if tonumber(redis.call('HGET', event, 'alone') or 0) >= MAX_ALONE then
    release(tenant, id, redis.call('HGET', event, 'registration'))
    enter(tenant, id, redis.call('HGET', event, 'state'), 'dead', now, {
      reason = 'worker_killer', move = 'bury', by = stage,
      detail = 'alone in its batch, it ended ' .. MAX_ALONE .. ' workers',
    })
    return 0
  end
  return (held[1] or held[3]) and batch or limit
end

local function known_of(id, delivery)
  local siblings = {}
  if not delivery then return { '', '', '0', siblings } end
  local record = key(tenant, 'delivery', delivery)
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    local version = string.match(fields[i], '^v:(.*)$')
    if version and fields[i + 1] ~= id then
      local other = redis.call('HMGET', key(tenant, 'event', fields[i + 1]), 'state', 'received_at')
      table.insert(siblings, { version, fields[i + 1], other[1] or '', other[2] or '0' })
    end
  end
  local applied, rev = unpack(redis.call('HMGET', record, 'applied', 'rev'))
  local by = applied and redis.call('HGET', record, 'v:' .. applied)
  local registration = by and redis.call('HGET', key(tenant, 'event', by), 'registration')
  return { applied or '', registration or '', rev or '0', siblings }
end

local blob = stage == 'process' and 'payload' or 'outcome'
local taken, batch = {}, limit
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(now), 'LIMIT', 0, limit)) do
  local event = key(tenant, 'event', id)
  local allowed = allowed_batch(id, event)
  if allowed > 0 and #taken < math.min(batch, allowed) then
    batch = math.min(batch, allowed)
    table.insert(taken, { id, event })
  end
end
local works = {}
for _, each in ipairs(taken) do
  local id, event = each[1], each[2]
  redis.call('HSET', event, 'lease', token, 'batch', #taken)
  redis.call('ZADD', due, int(until_), id)
  local fields = redis.call('HGETALL', event)
  local delivery = stage == 'sync' and redis.call('HGET', event, 'delivery')
  table.insert(works, { id, fields, redis.call('GET', key(tenant, blob, id)) or '', known_of(id, delivery) })
end

if #works > 0 then redis.call('ZADD', slot_index, int(until_), token) end
local more = redis.call('ZCOUNT', due, '-inf', int(now)) > 0
local free = slots == 0 or redis.call('ZCARD', slot_index) < slots
local hint = (#works > 0 and more and free) and want_hint(tenant, stage, now) or 0
return { '', now, hint, redis.call('LLEN', queue), works }
