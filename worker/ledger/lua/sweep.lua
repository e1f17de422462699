#!lua flags=allow-oom
-- sweep: hints what is due and unhinted in one tenant, and prunes what is final and old.
-- ARGV: tenant, patience with a hint in ms, prune older than ms, prune at most, 1 if the tenant is one of today's
-- Returns {hinted, pruned}.
local tenant, patience, age, most, known = unpack(ARGV)
local now = now_ms()

local function overdue(stage)
  if known ~= '1' then return 0 end
  if redis.call('ZCOUNT', key(tenant, 'due:' .. stage), '-inf', int(now)) == 0 then return 0 end
  if stage == 'sync' then
    local closed = redis.call('HGET', key(tenant, 'gate'), 'closed_until')
    if closed and tonumber(closed) > now then return 0 end
  end
  local sent = redis.call('GET', key(tenant, 'hint', stage))
  if sent and now - tonumber(sent) < tonumber(patience) then return 0 end
  send_hint(tenant, stage, now)
  return 1
end

local function prune()
  local pruned = 0
  local events = key(tenant, 'events')
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', events, '-inf', int(now - age), 'LIMIT', 0, most)) do
    local state, who, at = unpack(redis.call('HMGET', key(tenant, 'event', id), 'state', 'who', 'received_at'))
    if FINAL[state] then
      count(tenant, state, nil, -1)
      redis.call('HINCRBY', key(tenant, 'counts'), 'pruned', 1)
      name(tenant, who or '', '', at)
      redis.call('ZREM', events, id)
      redis.call('DEL', key(tenant, 'event', id), key(tenant, 'history', id), key(tenant, 'payload', id))
      pruned = pruned + 1
    end
  end
  return pruned
end

redis.call('HSET', 'er:sweep', 'at', int(now))
return say({ overdue('process') + overdue('sync'), prune() })
