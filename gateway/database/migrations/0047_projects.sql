-- Projects of organizations, and from which addresses each is reached.
CREATE SCHEMA project;

CREATE TABLE project.project (
    id                         uuid PRIMARY KEY,
    organization_id            uuid NOT NULL REFERENCES identity.organization,
    tenant_id                  uuid NOT NULL UNIQUE,   -- what its storage will be known by
    name                       text NOT NULL,
    region                     text NOT NULL,
    compute_unit_min           integer NOT NULL CHECK (compute_unit_min >= 1),
    compute_unit_max           integer NOT NULL CHECK (compute_unit_max >= compute_unit_min),
    block_public_connections   boolean NOT NULL,
    block_vpc_connections      boolean NOT NULL CHECK (NOT (block_vpc_connections AND block_public_connections)),
    enable_logical_replication boolean NOT NULL,
    hipaa                      boolean NOT NULL,
    protected_branches_only    boolean NOT NULL,
    history_retention_seconds  bigint NOT NULL CHECK (history_retention_seconds BETWEEN 3600 AND 2592000),
    created_by                 uuid NOT NULL REFERENCES identity.account,
    created_at                 timestamptz NOT NULL DEFAULT now(),
    updated_at                 timestamptz NOT NULL DEFAULT now(),
    deleted_at                 timestamptz,
    deleted_by                 uuid REFERENCES identity.account,
    CHECK ((deleted_at IS NULL) = (deleted_by IS NULL))
);
CREATE INDEX project_organization ON project.project (organization_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;

-- No row of a project is everybody; changes lock the project's row.
CREATE TABLE project.allowed_address (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES project.project,
    network     cidr NOT NULL,
    description text,
    created_by  uuid NOT NULL REFERENCES identity.account,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, network)
);

-- What belongs to a project. A publisher's settings are one document; what they name has to be there.
ALTER TABLE catalog.publisher
    ADD COLUMN project_id uuid GENERATED ALWAYS AS ((document ->> 'project_id')::uuid) STORED
        REFERENCES project.project;
CREATE INDEX publisher_project ON catalog.publisher (project_id) WHERE project_id IS NOT NULL;
ALTER TABLE webhook.endpoint ADD COLUMN project_id uuid REFERENCES project.project;
CREATE INDEX endpoint_project ON webhook.endpoint (project_id) WHERE project_id IS NOT NULL;
