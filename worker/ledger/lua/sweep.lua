#!lua flags=allow-oom
-- sweep: hints what is due and unhinted in one tenant, discards held and dead events when asked to, prunes final old ones.
-- ARGV: tenant, patience with a hint in ms, prune older than ms, at most, 1 if the tenant is one of today's, discard older than ms
-- Returns {hinted, pruned}.
local tenant, patience, age, most, is_todays, stopped = unpack(ARGV)
local now, LOOK, TOO_LATE = now_ms(), 10, 'nobody decided in time'

local function prune_event(id, event)
  count(tenant, event.state, nil, -1)
  add(tenant, 'pruned', 1)
  set_names(tenant, event, '')
  put(leaving, key(tenant, 'events'), id)
  for _, what in ipairs({ 'event', 'history', 'payload' }) do put(deleted, 'DEL', key(tenant, what, id)) end
  hashes[key(tenant, 'event', id)] = nil
end

-- What waits for a person is never pruned, however old. So that it does not hide what lies behind, a pass that could not
-- look at all that is old notes how far it came, and the next goes on there. It looks at ten times as many as it prunes.
local function prune()
  local events, mark, pruned = key(tenant, 'events'), 'pruned_to:' .. tenant, 0
  local score, last = string.match(redis.call('HGET', 'er:sweep', mark) or '', '^(%S+) (.*)$')
  local from, old = score and rank(events, score, last, true) or 0, redis.call('ZCOUNT', events, '-inf', int(now - age))
  redis.call('HDEL', 'er:sweep', mark)
  if from >= old then return 0 end
  local upto = math.min(old, from + LOOK * most)
  local page = redis.call('ZRANGE', events, int(from), int(upto - 1), 'WITHSCORES')
  for i = 1, #page, 2 do
    local event = hash(tenant, 'event', page[i])
    if FINAL[event.state or ''] then
      prune_event(page[i], event)
      pruned = pruned + 1
    end
    if pruned == tonumber(most) or (i + 1 == #page and upto < old) then
      redis.call('HSET', 'er:sweep', mark, page[i + 1] .. ' ' .. page[i])
      break
    end
  end
  return pruned
end

-- What a worker took and has not noted, so that the oldest is next. If that worker lives, it finds it gone (`_NOTE`).
for _ = 1, 100 do
  if not redis.call('LMOVE', TAKEN, RECEIVE_QUEUE, 'LEFT', 'RIGHT') then break end
end
redis.call('HSET', 'er:sweep', 'at', int(now))
for _, index in ipairs(tonumber(stopped or 0) > 0 and { INDEX.held, INDEX.dead } or {}) do
  local old = redis.call('ZRANGEBYSCORE', key(tenant, index), '-inf', int(now - stopped), 'LIMIT', 0, most)
  for _, id in ipairs(old) do enter(tenant, id, 'discarded', now, 'sweep', { move = 'discard', detail = TOO_LATE }) end
end
local hinted, pruned = is_todays == '1' and has_work(tenant, now) and hint(tenant, now, tonumber(patience)) or 0, prune()
write()
return say({ hinted, pruned })
