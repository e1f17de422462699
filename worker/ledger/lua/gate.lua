#!lua flags=allow-oom
-- gate: whether and how fast a tenant's Rhythm may be called. Asked right before every call.
-- ARGV: tenant, 'take', configured interval between calls in ms (0: none), longest wait in ms, probe's lease in ms, 1 if
--         the caller is the probe already (a read may be several calls), ms since its last turn (0: it had none)
--         returns {wait in µs, probe, closings} or {-1, closed for ms, reason}
--       tenant, 'look', as 'take', then closings: after a wait. The turn stands: {0, probe, closings}. It is void, for the
--         gate was closed meanwhile: as 'take'
--       tenant, 'close', reason, delay in ms (0: none asked for), base in ms, cap in ms, jitter 0..1, configured interval
--         returns the time it is closed for, in ms
--       tenant, 'open': Rhythm answered the probe. Not if another call's answer has closed the gate since.
local tenant, command = ARGV[1], ARGV[2]
local place = key(tenant, 'gate')
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000 -- to the µs: at 50 calls a second a ms is a twentieth of a turn
local gate = by_name(redis.call('HGETALL', place))
for _, name in ipairs({ 'closed_until', 'probe_until', 'next', 'learned_at', 'taken', 'early' }) do
  gate[name] = tonumber(gate[name] or 0)
end

-- The pace that 429s teach, in calls a second. After a lesson it begins below what was learned, approaches it within
-- HOLD and then goes beyond, faster and faster, until the next 429 or until there is nothing left of the lesson. So most
-- of the time is spent near the limit, and one that was lifted is found within a minute. FIRST is a guess that is wrong
-- either way; until a limit is found (`hold` is 0) the pace grows from the beginning and falls by up to FALL. Simulated:
-- `docs/design.md`. SLOWEST is above one turn in the longest wait.
local FIRST, SLOWEST, NO_LIMIT = 20, 0.2, 1000
local HOLD, BELOW, GROWTH = 35000, 0.1, 10000 -- ms, share, ms in which it grows by e
local LATE, EARLY, FALL = 0.98, 0.85, 3
local IDLE = 30000 -- ms

local function learned(at)
  if not gate.learned then return math.huge end
  local hold = tonumber(gate.hold)
  local past = math.max(0, at - gate.learned_at) - hold
  if past < 0 then return gate.learned * (1 - BELOW * (-past / hold) ^ 3) end
  local pace = gate.learned * math.exp(math.min(9, past / GROWTH) ^ 2)
  return pace < NO_LIMIT and pace or math.huge
end

local function pace(at, configured)
  return math.min(learned(at), configured > 0 and 1000 / configured or math.huge)
end

-- How many of the turns given since the last lesson were used, the refused one aside.
local function granted(rate)
  return math.max(0, gate.taken - 1 - math.floor(math.max(0, gate.next - now) * rate / 1000))
end

-- A 429 after a while at this pace: the limit is near. One soon after the last: the limit is below, so a little less,
-- twice; then, as long as none is found, what was got through between the two 429s, for that is what Rhythm allows
-- when its reserve is used up.
local function learn(configured, until_)
  local lesson = { hold = HOLD, early = 0, learned_at = until_, taught_at = now, taken = 0 }
  local rate = pace(now, configured)
  if learned(now) == math.huge then
    lesson.hold, lesson.early, lesson.learned = 0, 2, math.min(FIRST, LATE * rate)
  else
    rate = math.min(pace(now - 1000 / rate, configured), gate.gap and 1000 / gate.gap or rate)
    local got, open = granted(rate), now - gate.learned_at
    if got >= 3 and open >= 2000 and open * rate >= 3000 then
      lesson.learned = LATE * rate
    elseif gate.early < 2 then
      lesson.early, lesson.learned = gate.early + 1, EARLY * rate
    else
      lesson.hold, lesson.early = 0, gate.early
      lesson.learned = math.min(LATE * rate, math.max(rate / FALL, 1000 * got / (now - gate.taught_at)))
    end
  end
  lesson.learned = math.max(SLOWEST, lesson.learned)
  set_fields(place, lesson)
end

-- A turn is taken: computes the next turn's time, and two moving averages in ms: the gap between turns (`gap`), and how
-- long a task is busy with one (`busy`).
local function took(turn, configured, busy)
  local interval = 1000 / pace(turn, configured)
  if interval == 0 then return gate.interval and redis.call('HDEL', place, 'interval') end
  local fields = { next = turn + interval, interval = interval, taken = gate.taken + 1, gap = interval }
  if gate.taken > 0 and gate.gap then
    local since = turn - (gate.next - (gate.interval or interval))
    fields.gap = 0.7 * gate.gap + 0.3 * math.max(interval, math.min(2 * interval, since))
  elseif turn - gate.learned_at < IDLE then
    fields.learned_at = turn -- nobody called since the lesson
  end
  if busy > 0 then fields.busy = gate.busy and 0.8 * gate.busy + 0.2 * busy or busy end
  set_fields(place, fields)
  return true
end

local function take(configured, longest, probe_lease, probe, busy)
  if gate.closed_until > now then return { -1, gate.closed_until - now, gate.reason } end
  if gate.reason and gate.probe_until > now and not probe then return { -1, gate.probe_until - now, gate.reason } end
  local turn = math.max(now, gate.next)
  if turn - now > longest then return { -1, turn - now, 'pace' } end
  local wrote = took(turn, configured, busy) or gate.reason
  if gate.reason then redis.call('HSET', place, 'probe_until', int(turn + probe_lease)) end
  local answer = { math.ceil((turn - now) * 1000), gate.reason and 1 or 0, tonumber(gate.closings or 0) }
  return wrote and say(answer) or answer
end

local function look(configured, longest, probe_lease, probe, closings)
  if gate.reason and not (probe and gate.closed_until <= now) then
    return { -1, math.max(0, gate.closed_until - now), gate.reason }
  end
  if tonumber(gate.closings or 0) == closings then return { 0, probe and 1 or 0, closings } end
  return take(configured, longest, probe_lease, probe, 0)
end

local function close(reason, delay, base, cap, jitter, configured)
  local closed = gate.closed_until
  local failures = redis.call('HINCRBY', place, 'failures', closed > now and 0 or 1) -- calls that fail together count once
  local wait = delay > 0 and delay or math.min(cap, base * 2 ^ math.min(math.max(failures - 1, 0), 20)) * (0.5 + jitter / 2)
  local until_ = math.max(math.ceil(now + wait), closed)
  if reason == 'rhythm_throttled' and closed <= now then learn(configured, until_) end
  -- Turns that were given out are void: who waits for one takes another.
  if gate.next > now then redis.call('HINCRBY', place, 'closings', 1) end
  redis.call('HSET', place, 'next', math.min(gate.next, until_))
  redis.call(gate.reason == reason and 'HSETNX' or 'HSET', place, 'since', int(now)) -- of this reason
  redis.call('HSET', place, 'closed_until', until_, 'reason', reason)
  redis.call('HDEL', place, 'probe_until')
  return math.floor(until_ - now)
end

local given = {}
for i = 3, 8 do given[i] = tonumber(ARGV[i]) end
if command == 'take' then return take(given[3], given[4], given[5], given[6] == 1, given[7]) end
if command == 'look' then return look(given[3], given[4], given[5], given[6] == 1, given[8]) end
if command == 'close' then return say(close(ARGV[3], given[4], given[5], given[6], given[7], given[8])) end
if gate.closed_until > now then return 0 end
redis.call('HDEL', place, 'closed_until', 'reason', 'since', 'failures', 'probe_until')
return say(0)
