-- What a database publisher has on sale, as its role sees it: read when its connection string is stored, and again now
-- and then. `findings` is what is wrong with the role; a fatal one takes the publisher out of service.
CREATE TABLE catalog.sale (
    publisher_id    uuid PRIMARY KEY REFERENCES catalog.publisher,
    tables          jsonb NOT NULL,
    samples         jsonb NOT NULL DEFAULT '{}',
    findings        jsonb NOT NULL DEFAULT '[]',
    checked_at      timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER sale_changed AFTER INSERT OR UPDATE OF tables, findings OR DELETE ON catalog.sale
    FOR EACH ROW EXECUTE FUNCTION catalog.tell_changed();

-- End a hold as ledger.end_hold does, note what the receipt says and, for a call that has a key, keep its answer: all or
-- nothing. 'lost': the key is another call's by now; nothing moved.
CREATE FUNCTION ledger.finish_hold(
    p_exchange uuid, p_capture numeric, p_fee numeric, p_reason text, p_status smallint, p_bytes_in bigint,
    p_bytes_out bigint, p_grace interval, p_method text, p_target bytea, p_body bytea, p_owner uuid, p_key text,
    p_headers bytea, p_answer bytea, p_request bytea, OUT verdict text, OUT available numeric
) LANGUAGE plpgsql AS $$
BEGIN
    available := 0;
    IF p_key IS NOT NULL THEN
        PERFORM FROM ledger.answer a
          WHERE a.owner_id = p_owner AND a.key = p_key AND a.exchange_id = p_exchange FOR UPDATE;
        IF NOT FOUND THEN
            verdict := 'lost';
            RETURN;
        END IF;
    END IF;
    SELECT e.verdict, e.available INTO verdict, available
      FROM ledger.end_hold(p_exchange, p_capture, p_fee, p_reason, p_status, p_bytes_in, p_bytes_out, p_grace) e;
    IF verdict NOT IN ('captured', 'voided') THEN
        RETURN;
    END IF;
    UPDATE ledger.settlement SET method = p_method, target_hash = p_target, body_hash = p_body
     WHERE exchange_id = p_exchange;
    IF p_key IS NOT NULL THEN
        UPDATE ledger.answer a SET status = p_status, headers = p_headers, body = p_answer, body_hash = p_request
         WHERE a.owner_id = p_owner AND a.key = p_key;
    END IF;
END $$;
