-- GCRA for many calls at once. Each call is one or more checks and is all-or-nothing: a call that one policy refuses
-- consumes nothing from the others. A check of a call that passes may lease more calls to the worker that asks
-- (lease.py): they are counted here and now, and admitted there.
--
-- KEYS[c]   the state of check c: its theoretical arrival time (TAT) in microseconds
-- ARGV[1]   clock in microseconds; empty: the server's. Only tests pass one: workers' clocks differ, this one does not.
-- ARGV[2]   one byte per call: how many checks it has
-- ARGV[3..] per check: emission interval, tolerance (interval * burst), cost, how many more calls to lease (0: none)
--
-- Returns the clock, and two integers per check: how many calls were leased, -1 if the check does not fit; and the
-- microseconds until nothing is used, with this call and without what was leased.
--
-- All numbers are integers below 2^53, which Lua's doubles hold exactly. %.0f writes them out: tostring() would round
-- to 14 digits and lose the microseconds.

local LIFE = 1000000 -- a lease is spent within this time (lease.py has it too)
local SHARE = 50 -- a lease is at most this part of what is left

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local tat, dirty, result = {}, {}, {now}
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

  for c = first, last do
    local key, arg = KEYS[c], 4 * c
    local interval, tolerance, cost = tonumber(ARGV[arg - 1]), tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
    local base, need = tat[key], interval * math.max(cost, 1)
    before[c] = base
    if base < now then
      base = now
    elseif base > now + tolerance then
      -- The clock went back, or the policy was made stricter: nobody knows what is used. Begin anew, or the caller is
      -- refused for as long as the step was. Counting the bucket as full would refuse calls that come at once.
      base = now
      before[c], tat[key], dirty[key] = base, base, base
    end
    local fits = base + need - now <= tolerance
    if fits and cost > 0 then
      base = base + need
      tat[key] = base
    end
    refused = refused or not fits
    result[2 * c], result[2 * c + 1] = fits and 0 or -1, base - now
  end

  for c = last, first, -1 do
    if refused then
      tat[KEYS[c]] = before[c]
    else
      local arg = 4 * c
      local want = tonumber(ARGV[arg + 2])
      if want > 0 then
        local interval, base = tonumber(ARGV[arg - 1]), math.max(tat[KEYS[c]], now)
        local share = math.floor(math.floor((now + tonumber(ARGV[arg]) - base) / interval) / SHARE)
        -- A lease lapses as fast as the bucket refills. Where that is nearly full, it takes a lease of this size to
        -- have some of it for all of its life.
        local lasting = math.floor((now + LIFE - base) / interval)
        local leased = math.min(math.max(want, lasting), share)
        tat[KEYS[c]] = base + leased * interval
        result[2 * c] = leased
      end
      if tat[KEYS[c]] > now then
        dirty[KEYS[c]] = tat[KEYS[c]]
      end
    end
  end
  first = last + 1
end

for key, value in pairs(dirty) do
  -- State is worth keeping until its TAT has passed. One second late does no harm, one millisecond early would.
  redis.call('SET', key, string.format('%.0f', value), 'PX', string.format('%.0f', (value - now) / 1000 + 1000))
end
return result
