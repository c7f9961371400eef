-- Why a payout waits: the reason of the suspension of its publisher, or of the address that it goes to, as one sentence.
CREATE FUNCTION chain.payout_suspended(p_publisher uuid, p_destination bytea) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT regexp_replace(coalesce(
               (SELECT identity.suspension_of_publisher(p.id, p.organization_id)->>'reason'
                  FROM catalog.publisher p WHERE p.id = p_publisher),
               (SELECT s.reason FROM identity.suspension s
                 WHERE s.kind = 'wallet' AND s.subject = '0x' || encode(p_destination, 'hex') AND s.lifted_at IS NULL)),
           '([^.!?])$', '\1.')
$$;
