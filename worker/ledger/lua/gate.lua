#!lua flags=allow-oom
-- gate: whether and how fast a tenant's Rhythm may be called. Asked right before every call.
-- ARGV: tenant, 'take', interval between calls in ms (0: no pace), longest wait in ms, probe's lease in ms, 1 if the
--         caller is the probe already: a read may be several calls
--         returns {wait in ms, probe} or {-1, closed for ms, reason}
--       tenant, 'look', 1 if the caller is the probe: after a wait, whether the turn still stands; returns as 'take'
--       tenant, 'close', reason, delay in ms (0: none asked for), base in ms, cap in ms, jitter 0..1
--         returns the time it is closed for, in ms
--       tenant, 'open': Rhythm answered the probe. Not if another call's answer has closed the gate since.
local tenant, command = ARGV[1], ARGV[2]
local gate = key(tenant, 'gate')
local now = now_ms()
-- What a 429 teaches. Without a pace, a batch that needs more calls than Rhythm lets through at once would begin anew
-- each time and never end. Doubled by each 429, halved after a minute without; below the longest wait for a turn.
local FIRST_LESSON, LAST_LESSON, FORGET = 200, 5000, 60000

local function learned()
  local interval, at = unpack(redis.call('HMGET', gate, 'learned', 'learned_at'))
  interval = tonumber(interval or 0)
  if interval == 0 or now - at < FORGET then return interval end
  interval = interval / 2
  if interval < FIRST_LESSON then
    redis.call('HDEL', gate, 'learned', 'learned_at')
    return 0
  end
  redis.call('HSET', gate, 'learned', int(interval), 'learned_at', int(now))
  return interval
end

local function learn()
  local interval = math.min(LAST_LESSON, math.max(FIRST_LESSON, 2 * learned()))
  redis.call('HSET', gate, 'learned', int(interval), 'learned_at', int(now))
end

local function take(interval, longest, probe_lease, probe)
  local state = redis.call('HMGET', gate, 'closed_until', 'reason', 'probe_until', 'next')
  local closed, probing = tonumber(state[1] or 0), tonumber(state[3] or 0)
  if closed > now then return { -1, closed - now, state[2] } end
  if state[2] and probing > now and not probe then return { -1, probing - now, state[2] } end
  local turn = math.max(now, tonumber(state[4] or 0))
  interval = math.max(interval, learned())
  if turn - now > longest then return { -1, turn - now, 'pace' } end
  if interval > 0 then redis.call('HSET', gate, 'next', turn + interval) end
  if state[2] then redis.call('HSET', gate, 'probe_until', int(turn + probe_lease)) end
  return { math.ceil(turn - now), state[2] and 1 or 0 }
end

local function look(probe)
  local closed, reason = unpack(redis.call('HMGET', gate, 'closed_until', 'reason'))
  if reason and not (probe and tonumber(closed) <= now) then return { -1, math.max(0, closed - now), reason } end
  return { 0, probe and 1 or 0 }
end

local function close(reason, delay, base, cap, jitter)
  local closed = tonumber(redis.call('HGET', gate, 'closed_until') or 0)
  local failures = redis.call('HINCRBY', gate, 'failures', closed > now and 0 or 1) -- calls that fail together count once
  local wait = delay > 0 and delay or math.min(cap, base * 2 ^ math.min(math.max(failures - 1, 0), 20)) * (0.5 + jitter / 2)
  local until_ = math.max(now + math.floor(wait), closed)
  if reason == 'rhythm_throttled' and closed <= now then learn() end
  -- Turns that were given out are void: who waits for one looks again.
  local next_turn = tonumber(redis.call('HGET', gate, 'next') or 0)
  redis.call('HSET', gate, 'next', math.min(next_turn, until_))
  redis.call('HSETNX', gate, 'since', int(now))
  redis.call('HSET', gate, 'closed_until', int(until_), 'reason', reason)
  redis.call('HDEL', gate, 'probe_until')
  return until_ - now
end

if command == 'take' then return take(tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1') end
if command == 'look' then return look(ARGV[3] == '1') end
if command == 'close' then
  return close(ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
end
if tonumber(redis.call('HGET', gate, 'closed_until') or 0) > now then return 0 end
redis.call('HDEL', gate, 'closed_until', 'reason', 'since', 'failures', 'probe_until')
return 0
