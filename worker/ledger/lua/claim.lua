#!lua flags=allow-oom
-- claim: takes what is due, 1 to `limit` events, under a token until the lease ends: the most overdue, received or ready;
-- behind a closed gate only received ones, which can be read and prepared without Rhythm.
-- The due time of a claimed event is the end of its lease, so a lease that expires needs nobody to free it.
-- Leases that expire in a row halve the event's batch; three expiries alone bury it (a poison event hurts only itself).
-- ARGV: tenant, limit, token, lease in ms, slots (0: no limit), after how many ms a slot is free at the latest
-- Returns {now, others wait, works, ids of what was buried}; a work is {id, fields of the event, payload}.
local tenant, limit, token, lease, slots, slot_span = unpack(ARGV)
limit, slots = tonumber(limit), tonumber(slots)
local now, slot_index, works, ids, buried, MAX_ALONE = now_ms(), key(tenant, 'slots'), {}, {}, {}, 3
local until_ = now + tonumber(lease)
local PACED = 3 -- slots that a pace may need, whatever `concurrency` says: of four children one is left to others

local function add_works()
  local payloads = {}
  for i, id in ipairs(ids) do payloads[i] = key(tenant, 'payload', id) end
  payloads = #ids > 0 and redis.call('MGET', unpack(payloads)) or payloads
  for i, id in ipairs(ids) do
    local fields = {}
    for name, value in pairs(hash(tenant, 'event', id)) do
      if name ~= 'history' then fields[#fields + 1], fields[#fields + 2] = name, tostring(value) end
    end
    works[i] = { id, fields, payloads[i] or '' }
  end
end

if earlier then -- the same call again: what it took and still has
  for _, id in ipairs(earlier.claimed) do
    if hash(tenant, 'event', id).lease == token then table.insert(ids, id) end
  end
  add_works()
  return { earlier.now, earlier.others, works, buried }
end

-- A task's first claim clears the hint's mark. Later claims do not: the mark then belongs to a newer hint.
local first = not redis.call('ZSCORE', slot_index, token)
if first then redis.call('DEL', key(tenant, 'hint')) end
-- Enough tasks that while they are busy with their calls, the pace's every turn is taken.
local gate = hash(tenant, 'gate')
if gate.interval and gate.busy then
  slots = math.min(math.max(slots, PACED), math.max(1, math.ceil(gate.busy / gate.interval + 0.25)))
end
redis.call('ZREMRANGEBYSCORE', slot_index, '-inf', int(now))
if slots > 0 and first and redis.call('ZCARD', slot_index) >= slots then return { now, 0, works, buried } end

local batch, due = limit, {}
for _, index in ipairs(claimable(tenant, now)) do
  local page = redis.call('ZRANGEBYSCORE', index, '-inf', int(now), 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #page, 2 do table.insert(due, { id = page[i], at = tonumber(page[i + 1]), index = index }) end
end
table.sort(due, function(one, other) return one.at < other.at or (one.at == other.at and one.id < other.id) end)

-- An event whose lease expired may only be claimed in a smaller batch; alone too often, it is buried.
local function allowed_batch(id, event)
  if not event.lease and not event.expiries then return limit end
  local batch, alone = tonumber(event.batch or limit), tonumber(event.alone or 0)
  if event.lease then
    if batch == 1 then alone = alone + 1 end
    redis.call('HINCRBY', key(tenant, 'totals'), 'lease_expiries', 1)
    batch = math.max(1, math.floor(batch / 2))
    event.lease, event.expiries, event.alone, event.batch = nil, (event.expiries or 0) + 1, alone, batch
    note(event, now, 'process', { move = 'lease.expired' })
  end
  if alone < MAX_ALONE then return batch end
  release(tenant, id, event.registration)
  enter(tenant, id, 'dead', now, 'process', {
    reason = 'worker_killer', move = 'bury', detail = 'alone in its batch, it ended ' .. MAX_ALONE .. ' workers',
    fields = { doubt = event.intent or event.doubt },
  })
  table.insert(buried, id)
  return 0
end

for i = 1, math.min(limit, #due) do
  local one = due[i]
  local allowed = allowed_batch(one.id, hash(tenant, 'event', one.id))
  if allowed > 0 and #ids < math.min(batch, allowed) then
    batch = math.min(batch, allowed)
    table.insert(ids, one.id)
    put(entering, one.index, int(until_), one.id)
  end
end
for _, id in ipairs(ids) do
  hash(tenant, 'event', id).lease, hash(tenant, 'event', id).batch = token, #ids
end
write()
if #ids == 0 then return { now, 0, works, buried } end
add_works()
redis.call('ZADD', slot_index, int(math.min(until_, now + slot_span)), token)
-- Hints in the queue, but for this tenant's own: another tenant waits.
local others = redis.call('LLEN', HINT_QUEUE) > redis.call('EXISTS', key(tenant, 'hint')) and 1 or 0
local free = slots == 0 or redis.call('ZCARD', slot_index) < slots
if free and has_work(tenant, now) then hint(tenant, now) end
say({ claimed = ids, now = now, others = others })
return { now, others, works, buried }
