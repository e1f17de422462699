#!lua flags=allow-oom
-- claim: takes what is due at a stage, 1 to `limit` events, under a token until the lease ends.
-- The due time of a claimed event is the end of its lease, so a lease that expires needs nobody to free it.
-- Leases that expire in a row halve the event's batch; three expiries alone bury it (a poison event hurts only itself).
-- ARGV: tenant, stage, limit, token, lease in ms, slots (0: no limit), after how many ms a slot is free at the latest
-- Returns {why nothing: '' | 'closed' | 'busy', now, others wait, works}; a work is
-- {id, fields of the event, payload or outcome, for sync what the ledger holds of its delivery (`delivery_record`)}.
local tenant, stage, limit, token, lease, slots, slot_span = unpack(ARGV)
limit, slots = tonumber(limit), tonumber(slots)
local now = now_ms()
local until_ = now + tonumber(lease)
local due, slot_index = key(tenant, 'due:' .. stage), key(tenant, 'slots:' .. stage)
local MAX_ALONE = 3
local PACED = 3 -- slots that a pace may need, whatever `concurrency` says: of four children one is left to others

local function work_of(id, fields, event)
  local stored = redis.call('GET', key(tenant, stage == 'process' and 'payload' or 'outcome', id)) or ''
  return { id, fields, stored, delivery_record(tenant, id, stage == 'sync' and event or {}) }
end

if earlier then -- the same call again: what it took and still has
  local works = {}
  for _, id in ipairs(earlier.claimed) do
    local fields = redis.call('HGETALL', key(tenant, 'event', id))
    local event = by_name(fields)
    if event.lease == token then table.insert(works, work_of(id, fields, event)) end
  end
  return { '', earlier.now, earlier.others, works }
end

-- A task's first claim clears the hint's mark. Later claims do not: the mark then belongs to a newer hint.
local first = not redis.call('ZSCORE', slot_index, token)
if first then redis.call('DEL', key(tenant, 'hint', stage)) end
if stage == 'sync' then
  local gate = read(key(tenant, 'gate'), 'closed_until', 'interval', 'busy')
  if gate.closed_until and tonumber(gate.closed_until) > now then return { 'closed', now, 0, {} } end
  -- Enough tasks that while they are busy with their calls, the pace's every turn is taken.
  if gate.interval and gate.busy then
    slots = math.min(math.max(slots, PACED), math.max(1, math.ceil(gate.busy / gate.interval + 0.25)))
  end
end
redis.call('ZREMRANGEBYSCORE', slot_index, '-inf', int(now))
if slots > 0 and first and redis.call('ZCARD', slot_index) >= slots then return { 'busy', now, 0, {} } end

-- An event whose lease expired may only be claimed in a smaller batch; alone too often, it is buried.
local function allowed_batch(id, place, event)
  if not event.lease and not event.expiries then return limit end
  local batch, alone = tonumber(event.batch or limit), tonumber(event.alone or 0)
  if event.lease then
    redis.call('HDEL', place, 'lease')
    redis.call('HINCRBY', place, 'expiries', 1)
    if batch == 1 then alone = redis.call('HINCRBY', place, 'alone', 1) end
    batch = math.max(1, math.floor(batch / 2))
    redis.call('HSET', place, 'batch', batch)
    note(tenant, id, now, stage, { move = 'lease.expired' })
  end
  if alone < MAX_ALONE then return batch end
  release(tenant, id, event.registration)
  enter(tenant, id, event.state, 'dead', now, stage, {
    reason = 'worker_killer', move = 'bury', detail = 'alone in its batch, it ended ' .. MAX_ALONE .. ' workers',
    fields = { doubt = event.intent or event.doubt },
  })
  return 0
end

local taken, batch = {}, limit
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(now), 'LIMIT', 0, limit)) do
  local place = key(tenant, 'event', id)
  local fields = redis.call('HGETALL', place)
  local event = by_name(fields)
  local allowed = allowed_batch(id, place, event)
  if allowed > 0 and #taken < math.min(batch, allowed) then
    batch = math.min(batch, allowed)
    table.insert(taken, { id, fields, event })
  end
end
local works, ids = {}, {}
for i, one in ipairs(taken) do
  ids[i], works[i] = one[1], work_of(unpack(one))
  redis.call('HSET', key(tenant, 'event', ids[i]), 'lease', token, 'batch', #taken)
  redis.call('ZADD', due, int(until_), ids[i])
end
write_counts(tenant)

if #works > 0 then redis.call('ZADD', slot_index, int(math.min(until_, now + slot_span)), token) end
-- Hints in the queue, but for this tenant's own: another tenant waits.
local own = redis.call('EXISTS', key(tenant, 'hint', 'process'), key(tenant, 'hint', 'sync'))
local others = redis.call('LLEN', HINT_QUEUE) > own and 1 or 0
local more = redis.call('ZCOUNT', due, '-inf', int(now)) > 0
local free = slots == 0 or redis.call('ZCARD', slot_index) < slots
if #works > 0 and more and free then hint(tenant, stage, now) end
if #works > 0 then say({ claimed = ids, now = now, others = others }) end
return { '', now, others, works }
