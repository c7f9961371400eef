-- GCRA for many calls at once. Each call is one or more checks and is all-or-nothing: a call that one policy refuses
-- consumes nothing from the others.
--
-- KEYS[c]   the state of check c: its theoretical arrival time (TAT) in microseconds
-- ARGV[1]   clock in microseconds; empty: the server's. Only tests pass one: workers' clocks differ, this one does not.
-- ARGV[2]   one byte per call: how many checks it has
-- ARGV[3..] per check: emission interval, tolerance (interval * burst), cost
--
-- Returns four integers per call: the number (from 1) of the check that decided, negative when refused; calls of cost 1
-- remaining; microseconds until the same call passes; microseconds until nothing is used.
--
-- All numbers are integers below 2^53, which Lua's doubles hold exactly. %.0f writes them out: tostring() would round
-- to 14 digits and lose the microseconds.

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local tat, dirty, result = {}, {}, {}
if #KEYS > 0 then
  local stored = redis.call('MGET', unpack(KEYS))
  for c = 1, #KEYS do
    -- What is no number was not written here; failing on it would fail every call of the batch.
    tat[KEYS[c]] = tonumber(stored[c] or now) or now
  end
end

local first = 1
for call = 1, #ARGV[2] do
  local last = first + string.byte(ARGV[2], call) - 1
  local before, refused = {}, false
  local chosen, remaining, retry, reset = 0, 0, -1, 0

  for c = first, last do
    local key, arg = KEYS[c], 3 * c
    local interval, tolerance, cost = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
    local base = tat[key]
    before[c] = base
    if base < now then
      base = now
    elseif base > now + tolerance then
      -- The clock went back, or the policy was made stricter: forget the excess, or the caller stays locked out for
      -- as long as the step was.
      base = now + tolerance
      before[c], tat[key], dirty[key] = base, base, base
    end
    local need = interval * math.max(cost, 1)
    local fits = base + need - now <= tolerance
    if fits and cost > 0 then
      base = base + need
      tat[key] = base
    end
    local left = math.floor((now + tolerance - base) / interval)
    local wait = math.max(base + need - tolerance - now, 0)
    if not fits then
      if not refused or wait > retry then
        chosen, remaining, retry, reset = -(c - first + 1), left, wait, base - now
      end
      refused = true
    elseif not refused and (chosen == 0 or left < remaining or (left == remaining and wait > retry)) then
      chosen, remaining, retry, reset = c - first + 1, left, wait, base - now
    end
  end

  for c = last, first, -1 do
    if refused then
      tat[KEYS[c]] = before[c]
    elseif tat[KEYS[c]] > now then
      dirty[KEYS[c]] = tat[KEYS[c]]
    end
  end
  local n = #result
  result[n + 1], result[n + 2], result[n + 3], result[n + 4] = chosen, remaining, retry, reset
  first = last + 1
end

for key, value in pairs(dirty) do
  -- State is worth keeping until its TAT has passed. One second late does no harm, one millisecond early would.
  redis.call('SET', key, string.format('%.0f', value), 'PX', string.format('%.0f', (value - now) / 1000 + 1000))
end
return result
