#!lua flags=allow-oom
-- steer: an operator's replay or discard of one event. ARGV: tenant, id, move, who, why, answers as JSON, keep in ms
-- Returns {moved, state, reason}.
local tenant, id, move, who, why, answers, keep = unpack(ARGV)
local now = now_ms()
local event = key(tenant, 'event', id)
local state, reason = unpack(redis.call('HMGET', event, 'state', 'reason'))
if state ~= 'held' and state ~= 'dead' then return { 0, state or '', reason or '' } end
if move == 'discard' then
  enter(tenant, id, state, 'discarded', now, { move = move, by = who, detail = why, keep = keep })
  return { 1, 'discarded', '' }
end
redis.call('HDEL', event, 'attempts', 'first_attempt_at', 'registration')
if answers ~= '' then redis.call('HSET', event, 'answers', answers) end
enter(tenant, id, state, 'received', now, { move = move, by = who })
want_hint(tenant, 'process', now)
return { 1, 'received', '' }
