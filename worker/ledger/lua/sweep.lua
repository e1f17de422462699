#!lua flags=allow-oom
-- sweep: hints what is due and unhinted in one tenant, and prunes what is final and old.
-- ARGV: tenant, patience with a hint in ms, prune older than ms, prune at most, 1 if the tenant is one of today's
-- Returns {hinted, pruned}.
local tenant, patience, age, most, known = unpack(ARGV)
local now, LOOK = now_ms(), 10
most = tonumber(most)

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

-- What waits for a person is never pruned, however old. So that it does not hide what lies behind, a pass that could not
-- look at all that is old notes how far it came, and the next goes on there. It looks at ten times as many as it prunes.
local function prune()
  local events, mark, pruned = key(tenant, 'events'), 'pruned_to:' .. tenant, 0
  local score, id = string.match(redis.call('HGET', 'er:sweep', mark) or '', '^(%S+) (.*)$')
  local from, old = score and rank(events, score, id, true) or 0, redis.call('ZCOUNT', events, '-inf', int(now - age))
  redis.call('HDEL', 'er:sweep', mark)
  if from >= old then return 0 end
  local upto = math.min(old, from + LOOK * most)
  local found = redis.call('ZRANGE', events, int(from), int(upto - 1), 'WITHSCORES')
  for i = 1, #found, 2 do
    id = found[i]
    local state, who, at = unpack(redis.call('HMGET', key(tenant, 'event', id), 'state', 'who', 'received_at'))
    if FINAL[state] then
      count(tenant, state, nil, -1)
      redis.call('HINCRBY', key(tenant, 'counts'), 'pruned', 1)
      name(tenant, who or '', '', at)
      redis.call('ZREM', events, id)
      redis.call('DEL', key(tenant, 'event', id), key(tenant, 'history', id), key(tenant, 'payload', id))
      pruned = pruned + 1
    end
    if pruned == most or (i + 1 == #found and upto < old) then
      redis.call('HSET', 'er:sweep', mark, found[i + 1] .. ' ' .. id)
      break
    end
  end
  return pruned
end

redis.call('HSET', 'er:sweep', 'at', int(now))
return say({ overdue('process') + overdue('sync'), prune() })
