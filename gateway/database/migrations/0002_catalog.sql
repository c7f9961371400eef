-- What is sold and for how much: networks, assets, publishers, prices.
CREATE SCHEMA catalog;

CREATE TABLE catalog.network (
    id          text PRIMARY KEY,          -- CAIP-2
    name        text NOT NULL
);

CREATE TABLE catalog.asset (
    id                  uuid PRIMARY KEY,
    network_id          text NOT NULL REFERENCES catalog.network,
    symbol              text NOT NULL,
    name                text NOT NULL,
    decimals            smallint NOT NULL CHECK (decimals BETWEEN 0 AND 18),
    contract_address    text,
    is_native           boolean NOT NULL DEFAULT false,
    is_stablecoin       boolean NOT NULL DEFAULT false,
    -- The asset in which prepaid money for this one is kept: one prepaid dollar pays prices in USDC of any network.
    ledger_asset_id     uuid NOT NULL REFERENCES catalog.asset,
    is_default          boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX asset_default ON catalog.asset (is_default) WHERE is_default;

CREATE TABLE catalog.publisher (
    id                  uuid PRIMARY KEY,
    organization_id     uuid NOT NULL REFERENCES identity.organization,
    created_by          uuid NOT NULL REFERENCES identity.account,
    slug                text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9-]{2,64}$' AND slug <> 'suggest'),
    name                text NOT NULL,
    description         text,
    category            text NOT NULL CHECK (category IN ('database', 'integration', 'compute')),
    wallet_address      text NOT NULL,
    wallet_network_id   text NOT NULL REFERENCES catalog.network,
    is_active           boolean NOT NULL DEFAULT true,
    is_verified         boolean NOT NULL DEFAULT false,
    -- Everything else that the contract's publisher has, validated before it is stored, never a secret.
    document            jsonb NOT NULL DEFAULT '{}',
    -- Sealed by upstreams/credentials with the publisher's id as context; NULL when there are none.
    credentials         bytea,
    primary_asset_id    uuid NOT NULL REFERENCES catalog.asset,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz,
    search              tsvector NOT NULL DEFAULT ''::tsvector,
    search_text         text NOT NULL DEFAULT ''
);
CREATE INDEX publisher_organization ON catalog.publisher (organization_id, created_at DESC);
CREATE INDEX publisher_search ON catalog.publisher USING gin (search);

CREATE TABLE catalog.publisher_asset (
    publisher_id    uuid NOT NULL REFERENCES catalog.publisher,
    asset_id        uuid NOT NULL REFERENCES catalog.asset,
    PRIMARY KEY (publisher_id, asset_id)
);

-- Prices of one publisher in one asset: atomic units of that asset, multipliers as exact decimals.
CREATE TABLE catalog.pricing (
    publisher_id                uuid NOT NULL REFERENCES catalog.publisher,
    asset_id                    uuid NOT NULL REFERENCES catalog.asset,
    pricing_model               text NOT NULL DEFAULT 'per_request'
        CHECK (pricing_model IN ('per_row', 'per_request', 'per_byte', 'tiered', 'passthrough')),
    price_per_call              numeric(39,0) CHECK (price_per_call >= 0),
    price_per_get               numeric(39,0) CHECK (price_per_get >= 0),
    price_per_post              numeric(39,0) CHECK (price_per_post >= 0),
    price_per_put               numeric(39,0) CHECK (price_per_put >= 0),
    price_per_patch             numeric(39,0) CHECK (price_per_patch >= 0),
    price_per_delete            numeric(39,0) CHECK (price_per_delete >= 0),
    price_per_execution         numeric(39,0) CHECK (price_per_execution >= 0),
    base_price_per_1000_rows    numeric(39,0) NOT NULL DEFAULT 0 CHECK (base_price_per_1000_rows >= 0),
    hourly_rate                 numeric(39,0) CHECK (hourly_rate >= 0),
    markup_multiplier           numeric(12,6) NOT NULL DEFAULT 1 CHECK (markup_multiplier > 0),
    min_charge                  numeric(39,0) NOT NULL DEFAULT 0 CHECK (min_charge >= 0),
    max_charge                  numeric(39,0) CHECK (max_charge >= min_charge),
    min_display_price           numeric(39,0) CHECK (min_display_price >= 0),
    pricing_display_text        text,
    minimum_balance             numeric(39,0) NOT NULL DEFAULT 0 CHECK (minimum_balance >= 0),
    low_balance_threshold       numeric(39,0) NOT NULL DEFAULT 0 CHECK (low_balance_threshold >= 0),
    grace_period_minutes        integer CHECK (grace_period_minutes >= 0),
    max_queries_per_minute      integer CHECK (max_queries_per_minute > 0),
    payment_expiry_minutes      integer NOT NULL DEFAULT 5 CHECK (payment_expiry_minutes > 0),
    onchain_enabled             boolean NOT NULL DEFAULT true,
    prepaid_enabled             boolean NOT NULL DEFAULT true,
    updated_at                  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (publisher_id, asset_id)
);

CREATE TABLE catalog.logo (
    publisher_id    uuid PRIMARY KEY REFERENCES catalog.publisher,
    content_type    text NOT NULL,
    body            bytea NOT NULL CHECK (octet_length(body) <= 1048576),
    digest          bytea NOT NULL,
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- Ranked search: the name weighs most, then what it can do, then the prose. Kept by the database, so that no writer
-- can forget it.
CREATE FUNCTION catalog.words(value jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(string_agg(item, ' '), '') FROM jsonb_array_elements_text(
        CASE WHEN jsonb_typeof(value) = 'array' THEN value ELSE '[]'::jsonb END) AS item
$$;
CREATE FUNCTION catalog.fill_search() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.search :=
        setweight(to_tsvector('english', NEW.name || ' ' || replace(NEW.slug, '-', ' ')), 'A') ||
        setweight(to_tsvector('english', catalog.words(NEW.document->'capabilities') || ' ' ||
            catalog.words(NEW.document->'use_cases') || ' ' || catalog.words(NEW.document->'categories')), 'B') ||
        setweight(to_tsvector('english', coalesce(NEW.description, '') || ' ' ||
            coalesce(NEW.document->>'resource_name', '') || ' ' ||
            coalesce(NEW.document->>'resource_description', '')), 'C');
    NEW.search_text := lower(NEW.name || ' ' || NEW.slug || ' ' || catalog.words(NEW.document->'capabilities') || ' ' ||
        catalog.words(NEW.document->'use_cases') || ' ' || coalesce(NEW.description, ''));
    RETURN NEW;
END $$;
CREATE TRIGGER publisher_search BEFORE INSERT OR UPDATE ON catalog.publisher
    FOR EACH ROW EXECUTE FUNCTION catalog.fill_search();

-- Every worker holds the catalog in memory; a change names the publisher to read again.
CREATE FUNCTION catalog.tell_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed uuid;
BEGIN
    IF TG_TABLE_NAME = 'publisher' THEN
        changed := coalesce(NEW.id, OLD.id);
    ELSE
        changed := coalesce(NEW.publisher_id, OLD.publisher_id);
    END IF;
    PERFORM pg_notify('tollway_catalog', changed::text);
    RETURN NULL;
END $$;
CREATE TRIGGER publisher_changed AFTER INSERT OR UPDATE OR DELETE ON catalog.publisher
    FOR EACH ROW EXECUTE FUNCTION catalog.tell_changed();
CREATE TRIGGER pricing_changed AFTER INSERT OR UPDATE OR DELETE ON catalog.pricing
    FOR EACH ROW EXECUTE FUNCTION catalog.tell_changed();
CREATE TRIGGER publisher_asset_changed AFTER INSERT OR UPDATE OR DELETE ON catalog.publisher_asset
    FOR EACH ROW EXECUTE FUNCTION catalog.tell_changed();
