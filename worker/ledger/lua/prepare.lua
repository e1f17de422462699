#!lua flags=allow-oom
-- prepare: what is valid and new becomes ready and stays claimed, in one step: two workers cannot both find a version new. May
-- be repeated. What is ready keeps its version, unless the payload is read differently now and no write can be under way.
-- ARGV: tenant, token, events as JSON: {id, delivery, version, who, accepts = {reason = true}, ref}
-- Returns for each {answer, detail, delivery, version, what the ledger holds of the delivery (`delivery_record`)}: 'ready',
-- 'lost' (no longer the caller's), 'duplicate', or the reason to hold it. The last two are for `apply` to carry out.
local tenant, token, events, now, answers, lease_ends = ARGV[1], ARGV[2], cjson.decode(ARGV[3]), now_ms(), {}, nil

-- One `eventId` always means one result of one delivery.
local function contradicts(d)
  local ref, meant = key(tenant, 'ref', d.ref or ''), d.delivery .. ' ' .. d.version
  local before = d.ref and redis.call('GET', ref)
  if before and before ~= meant and not d.accepts.result_conflict then return true end
  if d.ref then redis.call('SET', ref, meant, 'PX', IDENTITY_KEPT) end
end

-- Whether another event that still counts has this version of the delivery, or what else keeps it from being ready.
local function why_not(d)
  local record = hash(tenant, 'delivery', d.delivery)
  local other, applied = record['v:' .. d.version], record.applied or ''
  local its = other and other ~= d.id and hash(tenant, 'event', other) or { state = 'dead' }
  local known = its.state ~= 'dead' and its.state ~= 'discarded'
  local stranger = known and strangers(its.who or '', d.who)
  if stranger and not d.accepts.result_conflict then
    return 'result_conflict', 'another person has the same result under the same id, as in ' .. other
  end
  local copy, rescore = known and not stranger, string.sub(applied, 1, 1) == 'r' and string.sub(d.version, 1, 1) == 'r'
  local replaced = copy and rescore and applied ~= d.version
  if replaced and not d.accepts.result_repeated then
    return 'result_repeated', 'a rescore that another has replaced came again, as in ' .. other
  end
  -- Each result is compared with all others of its delivery: thousands under an id that was never set would hold Redis up.
  local many = not known and tonumber(record.rev or 0) >= 100 and not d.accepts.result_conflict
  if many then return 'result_conflict', 'over a hundred results came under its id' end
  if contradicts(d) then return 'result_conflict', 'its eventId came before with another result' end
  if copy and not replaced then return 'duplicate', 'same as ' .. other end
end

local function prepare(d, event)
  set_names(tenant, event, d.who)
  event.delivery, event.version = d.delivery, d.version
  local record, reason, detail = hash(tenant, 'delivery', d.delivery), why_not(d)
  if reason then return reason, detail end
  if not record['v:' .. d.version] then record.rev = (record.rev or 0) + 1 end
  record['v:' .. d.version] = d.id
  keep_identity(tenant, 'delivery', d.delivery)
  -- They were claimed together, so their leases end together.
  lease_ends = lease_ends or redis.call('ZSCORE', key(tenant, INDEX[event.state]), d.id)
  enter(tenant, d.id, 'ready', now, 'process', { move = 'prepare', lease_ends = lease_ends })
  return 'ready', ''
end

for i, d in ipairs(events) do -- first, whatever is read differently now gives its former version up
  local event = hash(tenant, 'event', d.id)
  local record, version = hash(tenant, 'delivery', event.delivery or ''), 'v:' .. (event.version or '')
  local same, its = event.delivery == d.delivery and event.version == d.version, record[version] == d.id
  if event.lease ~= token then
    answers[i] = { 'lost', '' }
  elseif event.state == 'ready' and (event.intent or (same and its)) then
    answers[i], d.delivery, d.version, d.who = { 'ready', '' }, event.delivery, event.version, event.who
  elseif its and not same then
    record[version] = nil
  end
end
for i, d in ipairs(events) do answers[i] = answers[i] or { prepare(d, hash(tenant, 'event', d.id)) } end
for i, d in ipairs(events) do -- only now: results of one delivery that came together see each other
  local record = delivery_record(tenant, d.id, answers[i][1] == 'ready' and d or {})
  answers[i] = { answers[i][1], answers[i][2], d.delivery, d.version, record }
end
write()
return answers
