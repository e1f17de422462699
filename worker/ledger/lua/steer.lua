#!lua flags=allow-oom
-- steer: an operator's replay, discard or forget of one event; or the note of a look at its personal data.
-- ARGV: tenant, id, move, who, why, answers as JSON. Returns {moved, state, why not, due in ms}.
-- What waits for a machine is not taken from a worker (`leased`); nor while a write of it may be under way (`intended`):
-- only the next try, which begins by reading, can tell whether that landed.
local tenant, id, move, who, why, answers = unpack(ARGV)
local now, event = now_ms(), hash(tenant, 'event', id)
local state, waits = event.state or '', event.state == 'received' or event.state == 'ready'
local wait = waits and math.max(0, (redis.call('ZSCORE', key(tenant, INDEX[state]), id) or now) - now) or 0
if why == '' then why = nil end

-- Personal data and the names that lead to it are deleted; the event's states and times stay.
local function forget()
  if FINAL[state] then
    note(event, now, who, { move = move, reason = 'forgotten' })
  else
    release(tenant, id, event.registration)
    enter(tenant, id, 'discarded', now, who, { reason = 'forgotten', move = move })
  end
  set_names(tenant, event, '')
  clear(event, { 'detail', 'words', 'answers', 'intent', 'doubt' })
  event.reason = 'forgotten'
  put(deleted, 'DEL', key(tenant, 'payload', id))
  put(deleted, 'DEL', key(tenant, 'outcome', id))
  local record = event.registration and hash(tenant, 'registration', event.registration) or {}
  if record.event == id or not hash(tenant, 'event', record.event or '').state then -- or its writer was pruned
    record.accepted, record.values = nil, nil
    for piece = 1, 99 do record['values:' .. piece] = nil end -- as earlier builds stored them
  end
  return { 1, event.state, 'forgotten', 0 }
end

local function answer(...)
  write()
  return say({ ... })
end

if event.state and move == 'look' then
  note(event, now, who, { move = move, why = why })
  return answer(1, state, '', 0)
end
if event.state and move == 'forget' then
  if event.intent and event.lease and state == 'ready' and wait > 0 then return { 0, state, 'being written', 0 } end
  return answer(unpack(forget()))
end
if not INDEX[state] then return { 0, state, event.reason or '', 0 } end
if waits and event.lease and wait > 0 then return { 0, state, 'leased', wait } end
if waits and event.intent then return { 0, state, 'intended', wait } end
if move == 'discard' then
  enter(tenant, id, 'discarded', now, who, { move = move, why = why, detail = why })
  return answer(1, 'discarded', '', 0)
end
clear(event, { 'attempts', 'first_attempt_at', 'registration' })
if answers ~= '' then event.answers = answers end
enter(tenant, id, 'received', now, who, { move = move, why = why })
hint(tenant, now)
return answer(1, 'received', '', 0)
