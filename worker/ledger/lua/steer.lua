#!lua flags=allow-oom
-- steer: an operator's replay, discard or forget of one event.
-- ARGV: tenant, id, move, who, why, answers as JSON, keep in ms. Returns {moved, state, why not, due in ms}.
-- What waits for a machine is not taken from a worker (`leased`); nor while a write of it may be under way (`intended`):
-- only the next try, which begins by reading, can tell whether that landed.
local tenant, id, move, who, why, answers, keep = unpack(ARGV)
local now = now_ms()
local event = key(tenant, 'event', id)
if why == '' then why = nil end
local state, reason = unpack(redis.call('HMGET', event, 'state', 'reason'))

-- What is personal goes, and with it the way to it; what is left says that there was an event, and what became of it.
local function forget(registration)
  if FINAL[state] then note(tenant, id, now, move, who, 'forgotten') else
    release(tenant, id, registration)
    enter(tenant, id, state, 'discarded', now, { reason = 'forgotten', move = move, by = who })
  end
  local who_was, at = unpack(redis.call('HMGET', event, 'who', 'received_at'))
  name(tenant, who_was or '', '', at)
  redis.call('HDEL', event, 'who', 'detail', 'answers', 'intent', 'doubt')
  redis.call('HSET', event, 'reason', 'forgotten')
  redis.call('DEL', key(tenant, 'payload', id), key(tenant, 'outcome', id))
  local record = key(tenant, 'registration', registration or '')
  if redis.call('HGET', record, 'event') ~= id then return end
  local gone = { 'accepted' }
  for i = 1, 99 do table.insert(gone, 'values:' .. i) end
  redis.call('HDEL', record, unpack(gone))
end

if state and move == 'forget' then
  local lease, intent, registration = unpack(redis.call('HMGET', event, 'lease', 'intent', 'registration'))
  if intent and lease and state == 'ready' and tonumber(redis.call('ZSCORE', key(tenant, 'due:sync'), id)) > now then
    return { 0, state, 'being written', 0 }
  end
  forget(registration)
  return say({ 1, FINAL[state] and state or 'discarded', 'forgotten', 0 })
end
if not INDEX[state or ''] then return { 0, state or '', reason or '', 0 } end
if state == 'received' or state == 'ready' then
  local lease, intent = unpack(redis.call('HMGET', event, 'lease', 'intent'))
  local wait = math.max(0, tonumber(redis.call('ZSCORE', key(tenant, INDEX[state]), id)) - now)
  if lease and wait > 0 then return { 0, state, 'leased', wait } end
  if intent then return { 0, state, 'intended', wait } end
end
if move == 'discard' then
  enter(tenant, id, state, 'discarded', now, { move = move, by = who, why = why, detail = why, keep = keep })
  return say({ 1, 'discarded', '', 0 })
end
redis.call('HDEL', event, 'attempts', 'first_attempt_at', 'registration')
if answers ~= '' then redis.call('HSET', event, 'answers', answers) end
enter(tenant, id, state, 'received', now, { move = move, by = who, why = why })
hint(tenant, 'process', now)
return say({ 1, 'received', '', 0 })
